"""Wrong manifests and the exact errors they get; ``wrong.txt`` is the table."""

from pathlib import Path

import pytest

from cirri.manifests import ManifestError, resources
from cirri.testing.cases import WrongManifest, wrong_manifests

CASES = wrong_manifests(Path(__file__).with_name("wrong.txt"))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_wrong_manifest(case: WrongManifest) -> None:
    with pytest.raises(ManifestError) as caught:
        resources(["-"], case.text)
    assert tuple(str(p).removeprefix("-: ") for p in caught.value.problems) == case.errors


def test_the_table_is_large() -> None:
    assert len(CASES) >= 70
    assert sum(len(case.errors) for case in CASES) >= 150


def test_all_problems_of_all_files_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: Pood\nmetadata: {name: a}\n")
    (tmp_path / "b.yaml").write_text("a: [\n")
    (tmp_path / "c.json").write_text('{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": 1}}')

    with pytest.raises(ManifestError) as caught:
        resources([str(tmp_path), str(tmp_path / "absent.yaml")])

    assert [Path(p.file).name for p in caught.value.problems] == ["a.yaml", "absent.yaml", "b.yaml", "c.json"]
    assert str(caught.value).splitlines()[1] == f"{tmp_path}/absent.yaml: no such file or directory"

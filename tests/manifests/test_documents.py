"""Files, folders, lists and standard input."""

from pathlib import Path

import pytest

from cirri.manifests import ManifestError, load

NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n"


def names(paths: list[str], stdin: str | None = None) -> list[str]:
    return [document.manifest["metadata"]["name"] for document in load(paths, stdin)]


def test_a_folder_is_read_whole_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.yaml", "a.yml", "deep/c.json", "ignored.txt"):
        (tmp_path / name).write_text(NAMESPACE % Path(name).stem)

    assert names([str(tmp_path)]) == ["a", "b", "c"]


def test_documents_and_standard_input(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(NAMESPACE % "a" + "---\n# comment\n---\n" + NAMESPACE % "b")

    found = load([str(file), "-"], NAMESPACE % "c")

    assert [(d.manifest["metadata"]["name"], d.number, d.line) for d in found] == [
        ("a", 1, 1),
        ("b", 2, 7),
        ("c", 1, 1),
    ]
    assert found[1].source == f"{file}:7"


def test_lists_are_taken_apart(tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    items = "".join(f"- apiVersion: v1\n  kind: Namespace\n  metadata:\n    name: {n}\n" for n in "ab")
    file.write_text(f"apiVersion: v1\nkind: NamespaceList\nitems:\n{items}")

    first, second = load([str(file)])

    assert (first.line, second.line) == (4, 8)
    assert second.lines["metadata", "name"] == 11


def test_items_of_a_list_of_one_kind_need_not_say_what_they_are(tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text("apiVersion: v1\nkind: NamespaceList\nitems:\n- metadata: {name: a}\n")
    (found,) = load([str(file)])
    assert found.manifest == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}


def test_lists_of_lists(tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    items = "".join(f"  - {NAMESPACE % name}".replace("\n", "\n    ").rstrip(" ") for name in "ab")
    file.write_text(f"kind: List\nitems:\n- kind: List\n  items:\n{items}")
    first, second = load([str(file)])
    assert (first.line, second.line) == (5, 8)
    assert second.manifest["metadata"] == {"name": "b"}


def test_a_list_may_be_empty_and_a_file_named_twice(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("apiVersion: v1\nkind: List\nitems:\n")
    (tmp_path / "none.yaml").write_text("# nothing yet\n")
    (tmp_path / "a.yaml").write_text(NAMESPACE % "a")
    assert names([str(tmp_path), str(tmp_path / "none.yaml"), str(tmp_path / "a.yaml")]) == ["a"]


def test_json_may_be_indented_with_tabs(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{\n\t"apiVersion": "v1",\n\t"kind": "Namespace",\n\t"metadata": {"name": "a"}\n}\n')
    assert names([str(file)]) == ["a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no object in it"),
        (b"# only a comment\n", "no object in it"),
        (b"\xff\xfe", "not UTF-8 text (byte 0)"),
    ],
)
def test_files_without_objects(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    with pytest.raises(ManifestError) as caught:
        load([str(file)])
    assert str(caught.value) == f"{file}: {message}"


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        load([str(tmp_path)])
    assert str(caught.value) == f"{tmp_path}: no *.yaml, *.yml, *.json in this folder"

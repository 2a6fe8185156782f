"""The C that serves policies: one program at the entry of all system calls, which looks at few of them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network

from cirri.tracing.policy import NUMBERS_OF, SIGNED, Filter, Hook, Policy, Selector, Value, hook_number

MOST_POLICIES = 64
TEXT_ROOM = 256
PLACES = 2048
"""Bytes of texts, a power of two: five times their room and more."""
SOCKADDR = 28
"""Bytes of the largest address that is looked at: ``struct sockaddr_in6``."""
REGISTERS = ("di", "si", "dx", "r10", "r8", "r9")


def generate(policies: Sequence[Policy], maps: Mapping[str, int]) -> str:
    """C for bcc: function ``sensor_enter``, for the raw tracepoint ``sys_enter``.

    Args:
        policies: at most 64; a policy of some pods has bit N of its place in ``cirri_sensor_policies``.
        maps: descriptors of ``cirri_sensor_scope``, ``_policies``, ``_events`` and ``_counters`` in the
            process that compiles.
    """
    hooks = [(place, policy, hook) for place, policy in enumerate(policies) for hook in policy.hooks]
    calls: dict[int, list[str]] = {}
    functions: list[str] = []
    for place, policy, hook in hooks:
        name = f"hook_{len(functions)}"
        functions.append(_hook(name, hook))
        bit = "1" if policy.pods is None else f"mask & {1 << place}ULL"
        calls.setdefault(hook.number, []).append(f"if ({bit}) {name}(&regs, room);")
    cases = "\n".join(f"\tcase {number}:" for number in calls)
    bodies = "\n".join(
        f"\tcase {number}:\n" + "\n".join(f"\t\t{line}" for line in lines) + "\n\t\tbreak;"
        for number, lines in calls.items()
    )
    fds = {name.removeprefix("cirri_sensor_").upper(): fd for name, fd in maps.items()}
    defines = "\n".join(f"#define {name} ((void *)bpf_pseudo_fd(1, {fd}))" for name, fd in fds.items())
    return "\n".join(
        (defines, _STRUCTS, *functions, _ENTER.replace("CASES", cases).replace("BODIES", bodies))
    )


_STRUCTS = f"""
struct regs {{ u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs; }};
struct scope {{ u64 cgroup; u32 level; u32 pad; }};
struct call {{
	u64 time, start, cgroup;
	u32 pid, type;
	u64 arg[5];
	u32 hook, action, size[5], selector;
}};
struct room {{ struct call call; char text[{PLACES} + {TEXT_ROOM}]; }};
BPF_PERCPU_ARRAY(rooms, struct room, 1);

/* Within the room, in a way that no compiler takes for granted and the verifier sees. */
static __always_inline char *text_at(struct room *room, u64 at)
{{
	asm volatile("%0 &= {PLACES - 1}" : "+r"(at));
	return room->text + at;
}}

static __always_inline void tell(struct room *room, u32 used, u32 hook, u32 selector, int post, int signal)
{{
	u32 counter;
	u64 *count;

	if (signal)
		bpf_send_signal(signal);
	if (!post)
		return;
	room->call.hook = hook;
	room->call.selector = selector;
	room->call.action = signal;
	u64 size = used;
	asm volatile("%0 &= {PLACES - 1}" : "+r"(size));
	counter = bpf_ringbuf_output(EVENTS, room, sizeof(room->call) + size, 0) ? 1 : 0;
	count = bpf_map_lookup_elem(COUNTERS, &counter);
	if (count)
		__sync_fetch_and_add(count, 1);
}}
"""
_ENTER = """
int sensor_enter(struct bpf_raw_tracepoint_args *ctx)
{
	u64 number = ctx->args[1], cgroup, mask = 0, *found;
	struct regs regs = {};
	struct scope *scope;
	struct room *room;
	int zero = 0;

	switch (number) {
CASES
		break;
	default:
		return 0;
	}
	scope = bpf_map_lookup_elem(SCOPE, &zero);
	if (!scope || (scope->cgroup && bpf_get_current_ancestor_cgroup_id(scope->level) != scope->cgroup))
		return 0;
	bpf_probe_read_kernel(&regs, sizeof(regs), (void *)ctx->args[0]);
	if (regs.cs != 0x33)	/* a 32-bit call: its numbers mean others */
		return 0;
	cgroup = bpf_get_current_cgroup_id();
	found = bpf_map_lookup_elem(POLICIES, &cgroup);
	if (found)
		mask = *found;
	room = rooms.lookup(&zero);
	if (!room)
		return 0;
	__builtin_memset(&room->call, 0, sizeof(room->call));
	room->call.time = bpf_ktime_get_boot_ns();
	room->call.cgroup = cgroup;
	room->call.pid = bpf_get_current_pid_tgid() >> 32;
	room->call.type = 4;
	switch (number) {
BODIES
	}
	return 0;
}
"""


def _hook(name: str, hook: Hook) -> str:
    """The function of one hook: its arguments are fetched, then the first selector that fits decides."""
    lines = [
        f"/* {hook.function} */",
        f"static __always_inline void {name}(struct regs *regs, struct room *room)",
        "{",
        "\tu32 used = 0, begin0 = 0, begin1 = 0, begin2 = 0, begin3 = 0, begin4 = 0;",
        "\tlong got;",
    ]
    for place, argument in enumerate(hook.arguments):
        register = f"regs->{REGISTERS[argument.index]}"
        lines.append(f"\troom->call.size[{place}] = 0;")
        if argument.kind == "number":
            narrow = NUMBERS_OF[argument.type] == 32
            cast = ("(s64)(s32)" if argument.type in SIGNED else "(u32)") if narrow else ""
            lines.append(f"\troom->call.arg[{place}] = {cast}{register};")
            continue
        lines += [
            f"\tbegin{place} = used;",
            f"\tif (used > {(len(hook.arguments) - 1) * TEXT_ROOM})",
            "\t\treturn;",
        ]
        if argument.kind == "string":
            lines.append(
                f"\tgot = bpf_probe_read_user_str(text_at(room, used), {TEXT_ROOM}, (void *){register});"
            )
            lines.append("\tif (got < 1) { *text_at(room, used) = 0; got = 1; }")
            lines.append(f"\tif (got > {TEXT_ROOM}) return;")
        else:
            lines.append(f"\t__builtin_memset(text_at(room, used), 0, {SOCKADDR});")
            lines.append(
                f"\tbpf_probe_read_user(text_at(room, used), {SOCKADDR}, (void *){register}) && "
                f"bpf_probe_read_user(text_at(room, used), 16, (void *){register});"
            )
            lines.append(f"\tgot = {SOCKADDR};")
        lines += [f"\troom->call.size[{place}] = got;", "\tused += got;"]
    lines.append(f"\tif (used > {max(1, len(hook.arguments)) * TEXT_ROOM}) return;")
    for number, selector in enumerate(hook.selectors):
        condition = " && ".join(_conditions(selector, hook)) or "1"
        lines += [
            f"\tif ({condition}) {{",
            f"\t\ttell(room, used, {hook_number(hook)}U, {number}, {int(selector.post)}, {selector.signal});",
            "\t\treturn;",
            "\t}",
        ]
    return "\n".join([*lines, "}"])


def _conditions(selector: Selector, hook: Hook) -> list[str]:
    found = []
    for among, pids in selector.pids:
        any_of = " || ".join(f"room->call.pid == {pid}" for pid in pids) or "0"
        found.append(f"({any_of})" if among else f"!({any_of})")
    for each in selector.filters:
        kind = hook.arguments[each.place].kind
        build = {"number": _number, "string": _string, "sockaddr": _sockaddr}[kind]
        negative = each.operator.startswith("Not")
        any_of = " || ".join(f"({build(each, value, hook)})" for value in each.values)
        found.append(f"!({any_of})" if negative else f"({any_of})")
    return found


def _number(each: Filter, value: Value, hook: Hook) -> str:
    assert isinstance(value, int)
    signed = hook.arguments[each.place].type in SIGNED
    here = f"(({'s64' if signed else 'u64'})room->call.arg[{each.place}])"
    constant = f"{value}LL" if signed else f"{value & (1 << 64) - 1}ULL"
    operator = each.operator.removeprefix("Not")
    if operator == "Mask":
        return f"{here} & {constant}"
    return f"{here} {({'GT': '>', 'LT': '<'}).get(operator, '==')} {constant}"


def _string(each: Filter, value: Value, hook: Hook) -> str:
    assert isinstance(value, bytes)
    operator = each.operator.removeprefix("Not")
    text = value + b"\0" if operator in ("Equal", "Postfix", "") else value
    begin, size = f"begin{each.place}", f"room->call.size[{each.place}]"
    if operator == "Postfix":
        return f"{size} >= {len(text)} && {_bytes(f'{begin} + {size} - {len(text)}', text)}"
    return _bytes(begin, text)


def _bytes(begin: str, text: bytes) -> str:
    """Comparison of constant bytes, few at a time."""
    parts, at = [], 0
    for width, form, c_type in ((8, "<Q", "u64"), (4, "<I", "u32"), (2, "<H", "u16"), (1, "<B", "u8")):
        while len(text) - at >= width:
            (number,) = struct.unpack_from(form, text, at)
            parts.append(f"*({c_type} *)text_at(room, {begin} + {at}) == {number}ULL")
            at += width
    return " && ".join(parts)


def _sockaddr(each: Filter, value: Value, hook: Hook) -> str:
    begin = f"text_at(room, begin{each.place})"
    family = f"*(u16 *)({begin})"
    operator = each.operator.removeprefix("Not")
    if operator == "Family":
        assert isinstance(value, int)
        return f"{family} == {value}"
    if operator == "DPort":
        assert isinstance(value, tuple)
        port = f"ntohs(*(u16 *)({begin} + 2))"
        inet = f"({family} == 2 || {family} == 10)"
        return f"{inet} && {port} >= {value[0]} && {port} <= {value[1]}"
    assert isinstance(value, IPv4Network | IPv6Network)
    width, number, at = (4, 2, 4) if value.version == 4 else (16, 10, 8)
    raw, mask = value.network_address.packed, value.netmask.packed
    parts = [f"{family} == {number}"]
    for i in range(0, width, 4):
        bits = int.from_bytes(mask[i : i + 4], "little")
        if bits:
            wanted = int.from_bytes(raw[i : i + 4], "little")
            parts.append(f"(*(u32 *)({begin} + {at + i}) & {bits}U) == {wanted}U")
    return " && ".join(parts)

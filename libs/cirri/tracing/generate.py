"""The C that serves policies: one program at the entry of all system calls, which looks at few of them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network

from cirri.tracing.policy import (
    NUMBERS_OF,
    SIGNED,
    Argument,
    Filter,
    Hook,
    Policy,
    Selector,
    Value,
    hook_number,
)

MOST_POLICIES = 64
TEXT_ROOM = 256
PLACES = 2048
"""Bytes of texts, a power of two: five times their room and more."""
SOCKADDR = 28
"""Bytes of the largest address that is looked at: ``struct sockaddr_in6``."""
REGISTERS = ("di", "si", "dx", "r10", "r8", "r9")


def generate(policies: Sequence[Policy], maps: Mapping[str, int]) -> str:
    """C for bcc: function ``sensor_enter``, for the raw tracepoint ``sys_enter``; see :func:`tells_results`.

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
    enter = _ENTER.replace("CASES", cases).replace("BODIES", bodies)
    limited = any(selector.every_s for _, _, hook in hooks for selector in hook.selectors)
    ends = [_end(hook, hook.returns) for _, _, hook in hooks if hook.returns]
    return "\n".join(
        (
            defines,
            _STRUCTS,
            _LIMITS if limited else "",
            _PENDING if ends else "",
            *functions,
            enter,
            _EXIT.replace("BODIES", "\n".join(ends)) if ends else "",
        )
    )


def tells_results(policies: Sequence[Policy]) -> bool:
    """Whether there is a function ``sensor_exit`` too, for ``sys_exit``."""
    return any(hook.returns for policy in policies for hook in policy.hooks)


_STRUCTS = f"""
struct regs {{ u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs; }};
struct scope {{ u64 cgroup; u32 level; u32 pad; }};
struct call {{
	u64 time, start, cgroup;
	u32 pid, type;
	u64 arg[5];
	u32 hook, action, size[5], selector;
	s64 result;
}};
struct room {{ struct call call; char text[{PLACES} + {TEXT_ROOM}]; u32 used, pad; }};
BPF_PERCPU_ARRAY(rooms, struct room, 1);

/* Within the room, in a way that no compiler takes for granted and the verifier sees. */
static __always_inline char *text_at(struct room *room, u64 at)
{{
	asm volatile("%0 &= {PLACES - 1}" : "+r"(at));
	return room->text + at;
}}

static __always_inline void count_one(u32 counter)
{{
	u64 *count = bpf_map_lookup_elem(COUNTERS, &counter);

	if (count)
		__sync_fetch_and_add(count, 1);
}}

static __always_inline void post(struct room *room, u64 size)
{{
	asm volatile("%0 &= {PLACES - 1}" : "+r"(size));
	count_one(bpf_ringbuf_output(EVENTS, room, sizeof(room->call) + size, 0) ? 1 : 0);
}}

static __always_inline void decide(struct room *room, u32 used, u32 hook, u32 selector, int signal)
{{
	room->call.hook = hook;
	room->call.selector = selector;
	room->call.action = signal;
	room->used = used;
	if (signal)
		bpf_send_signal(signal);
}}
"""
_LIMITS = """
struct same { u64 who, args; u32 hook, selector; };
BPF_TABLE("lru_hash", struct same, u64, told, 4096);

/* Texts are alike if their first 64 bytes are. */
static __always_inline u64 fold(struct room *room, u64 so_far, u32 at, u32 size)
{
#pragma unroll
	for (u32 i = 0; i < 64; i++)
		if (i < size)
			so_far = (so_far ^ *(u8 *)text_at(room, at + i)) * 1099511628211ULL;
	return so_far;
}

/* Whether the same has not been told for so long. */
static __always_inline int due(struct room *room, u64 who, u64 args, u64 every)
{
	struct same same = { who, args, room->call.hook, room->call.selector };
	u64 *last = told.lookup(&same), now = room->call.time;

	if (last && now - *last < every)
		return 0;
	told.update(&same, &now);
	return 1;
}
"""
_PENDING = """
/* Calls that are to be told when they are over, by thread. */
BPF_F_TABLE("hash", u64, struct room, pending, 4096, BPF_F_NO_PREALLOC);

static __always_inline void keep(struct room *room)
{
	u64 thread = bpf_get_current_pid_tgid();

	if (pending.update(&thread, room))
		count_one(1);
}
"""
_EXIT = """
int sensor_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct room *room = pending.lookup(&thread);
	s64 result;
	int fits = 0;

	if (!room)
		return 0;
	room->call.result = result = ctx->args[1];
	switch (room->call.hook) {
BODIES
	}
	if (fits)
		post(room, room->used);
	pending.delete(&thread);
	return 0;
}
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
            lines.append(f"\troom->call.arg[{place}] = {_narrow(argument, register)};")
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
        call = f"room, used, {hook_number(hook)}U, {number}, {selector.signal}"
        lines += [f"\tif ({condition}) {{", f"\t\tdecide({call});"]
        if selector.post:
            tell = "keep(room);" if hook.returns else "post(room, used);"
            lines.append(f"\t\t{_limit(selector, hook)}{tell}")
        lines += ["\t\treturn;", "\t}"]
    return "\n".join([*lines, "}"])


def _limit(selector: Selector, hook: Hook) -> str:
    """``if (...) ``, or nothing where each event is told."""
    if not selector.every_s:
        return ""
    who = {"thread": "bpf_get_current_pid_tgid()", "process": "room->call.pid", "global": "0"}[selector.scope]
    same = "0"
    for place, argument in enumerate(hook.arguments):
        if argument.kind == "number":
            same = f"({same} ^ room->call.arg[{place}]) * 1099511628211ULL"
        else:
            same = f"fold(room, {same}, begin{place}, room->call.size[{place}])"
    return f"if (due(room, {who}, {same}, {selector.every_s * 10**9}ULL)) "


def _end(hook: Hook, returns: Argument) -> str:
    """What is done with a hook's call when it is over."""
    lines = [
        f"\tcase {hook_number(hook)}U:",
        f"\t\troom->call.result = result = {_narrow(returns, 'result')};",
    ]
    for number, selector in enumerate(hook.selectors):
        fits = " && ".join(_any_of(each, hook) for each in selector.results) or "1"
        lines.append(f"\t\tif (room->call.selector == {number}) fits = {fits};")
    return "\n".join([*lines, "\t\tbreak;"])


def _narrow(argument: Argument, text: str) -> str:
    if NUMBERS_OF[argument.type] == 64:
        return text
    return f"{'(s64)(s32)' if argument.type in SIGNED else '(u32)'}{text}"


def _conditions(selector: Selector, hook: Hook) -> list[str]:
    found = []
    for among, pids in selector.pids:
        any_of = " || ".join(f"room->call.pid == {pid}" for pid in pids) or "0"
        found.append(f"({any_of})" if among else f"!({any_of})")
    return found + [_any_of(each, hook) for each in selector.filters]


def _any_of(each: Filter, hook: Hook) -> str:
    """One condition: whether one of its values fits, or none does."""
    kind = hook.arguments[each.place].kind if each.place >= 0 else "number"
    build = {"number": _number, "string": _string, "sockaddr": _sockaddr}[kind]
    any_of = " || ".join(f"({build(each, value, hook)})" for value in each.values)
    return f"!({any_of})" if each.operator.startswith("Not") else f"({any_of})"


def _number(each: Filter, value: Value, hook: Hook) -> str:
    argument = hook.arguments[each.place] if each.place >= 0 else hook.returns
    assert argument is not None
    signed = argument.type in SIGNED
    here = (
        f"(({'s64' if signed else 'u64'}){f'room->call.arg[{each.place}]' if each.place >= 0 else 'result'})"
    )
    operator = each.operator.removeprefix("Not")
    if isinstance(value, tuple):
        return f"{here} >= {_constant(value[0], signed)} && {here} <= {_constant(value[1], signed)}"
    assert isinstance(value, int)
    if operator == "Mask":
        return f"{here} & {_constant(value, signed)}"
    sign = {"GT": ">", "GreaterThan": ">", "LT": "<", "LessThan": "<"}.get(operator, "==")
    return f"{here} {sign} {_constant(value, signed)}"


def _constant(value: int, signed: bool) -> str:
    return f"{value}LL" if signed else f"{value & (1 << 64) - 1}ULL"


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

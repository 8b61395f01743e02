"""House rules that no linter knows: what the core may touch, and how long things may get."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "replicad"

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 80
# The ratchet: a file or function that may be longer, and how long it is today. It may shrink, never grow.
LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}

# A clock, a loop, a socket, a disk, global randomness, another thread or process: none of them in the core.
IMPURE = frozenset(
    """
    asyncio concurrent datetime fcntl glob io locale logging mmap multiprocessing os pathlib platform queue sched
    secrets select selectors shutil signal socket socketserver ssl subprocess tempfile threading time urllib uuid
    """.split()  # noqa: SIM905 - forty lines of quotes say no more
)
FOREIGN = frozenset({"msgpack", "replicad"})
IMPURE_CALLS = frozenset({"hash", "id", "input", "open", "print"})

SET_TYPES = frozenset({"set", "frozenset", "Set", "AbstractSet", "MutableSet", "FrozenSet"})
SET_METHODS = frozenset({"copy", "union", "intersection", "difference", "symmetric_difference"})
MAPPING_TYPES = frozenset({"dict", "defaultdict", "Mapping", "MutableMapping", "OrderedDict"})
# The answers of these do not depend on the order in which they see their argument.
ORDER_BLIND = frozenset({"sorted", "any", "all", "sum", "len", "set", "frozenset", "min", "max"})
# The answers of these do.
ORDER_BOUND = frozenset({"list", "tuple", "iter", "enumerate", "map", "filter", "zip", "fromkeys", "join", "extend"})

# Whoever reads a sentence must be a person: it may be worded anew, and it repeats names that anybody may choose.
SENTENCES = frozenset({"sentence", "refusal", "reason", "reasons", "why", "hint", "advice", "message", "failure"})
ERRORS = frozenset({"error", "exception", "failure"})
READING = frozenset({"startswith", "endswith", "find"})
MATCHING = frozenset({"search", "match", "fullmatch", "findall"})
READERS = {
    "replicad/core/model/older_refusals.py": "peers of the release before send no code",
    "replicad/http/responses.py": "puts a full stop where there is none",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def last_name(node: ast.AST | None) -> str:
    """`c` for both `c` and `a.b.c`, nothing for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def impurities(tree: ast.Module) -> Iterator[str]:
    """Imports and calls through which the outside world could get into the core."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                modules = [alias.name.partition(".")[0] for alias in names]
            case ast.ImportFrom(module=str(module), level=0, names=names):
                modules = [module.partition(".")[0]]
                if modules == ["random"] and [alias.name for alias in names] == ["Random"]:
                    continue
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS and not inside_dunder_hash(tree, node):
                yield f"line {node.lineno}: calls {name}()"
                continue
            case ast.Call(func=ast.Name(id="Random"), args=[], keywords=[]):
                yield f"line {node.lineno}: Random() without a seed"
                continue
            case _:
                continue
        for module in modules:
            known = module in FOREIGN or module in sys.stdlib_module_names
            if module in IMPURE or module == "random" or not known:
                yield f"line {node.lineno}: imports {module}"


def inside_dunder_hash(tree: ast.Module, call: ast.Call) -> bool:
    """Only `__hash__` may call hash(): what it returns orders nothing."""
    return any(
        isinstance(node, ast.FunctionDef) and node.name == "__hash__" and call in ast.walk(node)
        for node in ast.walk(tree)
    )


class SetNames(ast.NodeVisitor):
    """Finds where the order of a set's elements, which differs from process to process, could leak out.

    Names are known per function, attributes and functions per module, all by what is written in that one module.
    """

    def __init__(self) -> None:
        self.scopes: list[set[str]] = [set()]
        self.attributes: set[str] = set()
        self.functions: set[str] = set()
        self.set_valued: set[str] = set()  # mappings whose values are sets, by name or attribute
        self.blind: set[ast.AST] = set()
        self.found: list[str] = []

    def check(self, tree: ast.Module) -> list[str]:
        for node in ast.walk(tree):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    if is_set_type(node.returns):
                        self.functions.add(node.name)
                case ast.ClassDef():
                    for item in node.body:
                        if isinstance(item, ast.AnnAssign) and is_set_type(item.annotation):
                            self.attributes.add(last_name(item.target))
                case ast.AnnAssign(target=ast.Attribute(attr=name)) if is_set_type(node.annotation):
                    self.attributes.add(name)
                case ast.Assign(targets=targets) if self.is_set(node.value):
                    self.attributes.update(target.attr for target in targets if isinstance(target, ast.Attribute))
            if isinstance(node, ast.AnnAssign | ast.arg) and is_mapping_to_sets(node.annotation):
                self.set_valued.add(node.arg if isinstance(node, ast.arg) else last_name(node.target))
        self.visit(tree)
        return self.found

    def is_set(self, node: ast.AST) -> bool:
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Name(id=name):
                return any(name in scope for scope in self.scopes)
            case ast.Attribute(attr=name):
                return name in self.attributes
            case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right):
                return any(self.is_set(side) or is_keys_call(side) for side in (left, right))
            case ast.IfExp(body=body, orelse=orelse):
                return self.is_set(body) or self.is_set(orelse)
            case ast.BoolOp(values=values):
                return any(self.is_set(value) for value in values)
            case ast.NamedExpr(value=value):
                return self.is_set(value)
            case ast.Subscript(value=value):
                return last_name(value) in self.set_valued
            case ast.Call(func=ast.Name(id=name)):
                return name in {"set", "frozenset"} or name in self.functions
            case ast.Call(func=ast.Attribute(value=value, attr=name)):
                return (
                    name in self.functions
                    or (name in SET_METHODS and self.is_set(value))
                    or (name in {"get", "setdefault", "pop"} and last_name(value) in self.set_valued)
                )
        return False

    def flag(self, node: ast.AST, what: str) -> None:
        self.found.append(f"line {node.lineno}: {what} a set without sorted()")

    def learn(self, target: ast.AST, *, is_set: bool) -> None:
        if isinstance(target, ast.Name) and is_set:
            self.scopes[-1].add(target.id)

    def visit_function(self, node: Function) -> None:
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        self.scopes.append({argument.arg for argument in arguments if is_set_type(argument.annotation)})
        self.generic_visit(node)
        self.scopes.pop()

    visit_FunctionDef = visit_function  # noqa: N815 - the visitor's protocol
    visit_AsyncFunctionDef = visit_function  # noqa: N815 - the visitor's protocol

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.scopes.append(set())
        self.generic_visit(node)
        self.scopes.pop()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.learn(node.target, is_set=is_set_type(node.annotation))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self.learn(target, is_set=self.is_set(node.value))
        self.generic_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.learn(node.target, is_set=self.is_set(node.value))
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        if self.is_set(node.iter):
            self.flag(node, "iterates over")
        self.generic_visit(node)

    def visit_YieldFrom(self, node: ast.YieldFrom) -> None:
        if self.is_set(node.value):
            self.flag(node, "yields from")
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        if isinstance(node.ctx, ast.Load) and node not in self.blind and self.is_set(node.value):
            self.flag(node, "unpacks")
        self.generic_visit(node)

    def visit_Set(self, node: ast.Set) -> None:
        self.blind.update(node.elts)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = last_name(node.func)
        if name in ORDER_BLIND and isinstance(node.func, ast.Name):
            self.blind.update(node.args)
        elif name in ORDER_BOUND and any(self.is_set(argument) for argument in node.args):
            self.flag(node, f"{name}() of")
        elif name == "pop" and not node.args and isinstance(node.func, ast.Attribute) and self.is_set(node.func.value):
            self.flag(node, "pops any element of")
        self.generic_visit(node)

    def visit_comprehension_node(self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp) -> None:
        if node not in self.blind and any(self.is_set(generator.iter) for generator in node.generators):
            self.flag(node, "a comprehension over")
        self.generic_visit(node)

    visit_ListComp = visit_comprehension_node  # noqa: N815 - the visitor's protocol
    visit_GeneratorExp = visit_comprehension_node  # noqa: N815 - the visitor's protocol
    visit_DictComp = visit_comprehension_node  # noqa: N815 - the visitor's protocol


def is_keys_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "keys"


def is_set_type(annotation: ast.AST | None) -> bool:
    match annotation:
        case ast.Constant(value=str(text)):
            return is_set_type(ast.parse(text, mode="eval").body)
        case ast.Subscript(value=value, slice=inner):
            name = last_name(value)
            return name in SET_TYPES or (name in {"Final", "ClassVar", "Optional"} and is_set_type(inner))
        case ast.BinOp(left=left, right=right):
            return is_set_type(left) or is_set_type(right)
    return last_name(annotation) in SET_TYPES


def is_mapping_to_sets(annotation: ast.AST | None) -> bool:
    match annotation:
        case ast.Subscript(value=value, slice=ast.Tuple(elts=[_, values])):
            return last_name(value) in MAPPING_TYPES and is_set_type(values)
    return False


def is_sentence(node: ast.AST | None) -> bool:
    """Whether an expression gives, by what it is called, words for people."""
    match node:
        case ast.Call(func=ast.Name(id="str" | "repr"), args=[inner]):
            return last_name(inner) in ERRORS or is_sentence(inner)
        case ast.Call(func=ast.Attribute(value=value, attr="lower" | "casefold" | "strip"), args=[]):
            return is_sentence(value)
        case ast.Subscript(value=ast.Attribute(value=value, attr="args")):
            return last_name(value) in ERRORS
        case ast.IfExp(body=body, orelse=orelse):
            return is_sentence(body) or is_sentence(orelse)
        case ast.BoolOp(values=values):
            return any(is_sentence(value) for value in values)
    return last_name(node) in SENTENCES


def is_wording(node: ast.AST) -> bool:
    """Whether an expression is several words, or a collection of such."""
    match node:
        case ast.Constant(value=str(text)):
            return bool(re.search(r"[a-z] [a-z]", text))
        case ast.Tuple(elts=items) | ast.Set(elts=items) | ast.List(elts=items):
            return any(is_wording(item) for item in items)
    return False


def worded_decisions(tree: ast.Module) -> Iterator[str]:
    """Where a program decides by a sentence, or by the name of a line in the event log."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, ops=[ast.In() | ast.NotIn()], comparators=[right]):
                if is_sentence(right) or is_wording(left) or is_wording(right):
                    yield f"line {node.lineno}: looks for words in a sentence"
            case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq()], comparators=[right]):
                texts = [side for side in (left, right) if isinstance(side, ast.Constant) and side.value]
                worded = is_wording(left) or is_wording(right)
                if worded or (texts and any(is_sentence(side) for side in (left, right))):
                    yield f"line {node.lineno}: compares a sentence"
            case ast.Call(func=ast.Attribute(value=value, attr=name), args=[*arguments]):
                if name in READING and (is_sentence(value) or any(is_wording(each) for each in arguments)):
                    yield f"line {node.lineno}: {name}() of a sentence"
                elif name in MATCHING and any(is_sentence(each) for each in arguments):
                    yield f"line {node.lineno}: {name}() in a sentence"
            case (
                ast.For(target=target, iter=ast.Attribute(attr="events"))
                | ast.comprehension(target=target, iter=ast.Attribute(attr="events"))
            ):
                names = {each.id for each in ast.walk(target) if isinstance(each, ast.Name)}
                yield from event_decisions(tree if isinstance(node, ast.comprehension) else node, names)

            case ast.FunctionDef(name="event" | "on_event"):
                yield from event_decisions(node, {"name"})


def event_decisions(scope: ast.AST, names: set[str]) -> Iterator[str]:
    for node in ast.walk(scope):
        asked = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        asked += [node.subject] if isinstance(node, ast.Match) else []
        if any(isinstance(each, ast.Name) and each.id in names for each in asked):
            yield f"line {node.lineno}: decides by the name of an event"


def core_faults(source: str) -> list[str]:
    tree = ast.parse(source)
    return [*impurities(tree), *SetNames().check(tree)]


def long_functions(source: str) -> Iterator[tuple[str, int]]:
    """Every function longer than the limit: its qualified name and its lines, decorators left out."""

    def walk(node: ast.AST, path: str) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | Function):
                name = f"{path}.{child.name}".lstrip(".")
                lines = (child.end_lineno or child.lineno) - child.lineno + 1
                if isinstance(child, Function) and lines > FUNCTION_LINES_MAX:
                    yield name, lines
                yield from walk(child, name)
            else:
                yield from walk(child, path)

    return walk(ast.parse(source), "")


def loose_ends(text: str) -> list[str]:
    words = "|".join(("FIX" + "ME", "TO" + "DO", "XX" + "X"))
    return [
        f"line {n}: {line.strip()}" for n, line in enumerate(text.splitlines(), 1) if re.search(rf"\b({words})\b", line)
    ]


def ratchet_faults(actual: dict[str, int], allowed: dict[str, int]) -> list[str]:
    """What is too long, and exceptions that are no longer needed or no longer tight."""
    faults = [f"{name} has {lines} lines" for name, lines in actual.items() if lines > allowed.get(name, 0)]
    stale = [f"{name}: lower or remove its exception" for name, n in allowed.items() if actual.get(name, 0) < n]
    return faults + stale


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_core_is_pure_and_deterministic():
    files = python_files(PACKAGE / "core")
    assert files
    assert [f"{short(path)} {fault}" for path in files for fault in core_faults(path.read_text())] == []


def test_no_decision_hangs_on_words():
    """Refusals and errors have codes; a step asks for what it wants done by an effect, not by an event."""
    found = {short(path): list(worded_decisions(ast.parse(path.read_text()))) for path in python_files(PACKAGE)}
    assert {name: faults for name, faults in found.items() if faults and name not in READERS} == {}
    assert [name for name in READERS if not found[name]] == []


def test_no_loose_ends():
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert [f"{short(path)} {end}" for path in sorted(files) for end in loose_ends(path.read_text())] == []


def test_files_stay_short():
    lengths = {short(path): len(path.read_text().splitlines()) for path in python_files(PACKAGE)}
    assert ratchet_faults({name: n for name, n in lengths.items() if n > FILE_LINES_MAX}, LONG_FILES) == []


def test_functions_stay_short():
    lengths = {
        f"{short(path)}::{name}": lines
        for path in python_files(PACKAGE)
        for name, lines in long_functions(path.read_text())
    }
    assert ratchet_faults(lengths, LONG_FUNCTIONS) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import os.path",
        "from asyncio import sleep",
        "from datetime import datetime",
        "import random",
        "from random import Random, random",
        "from random import random",
        "import aiohttp",
        "from random import Random\nr = Random()",
        "def f():\n    import socket",
        "x = hash('a')",
        "x = open('a')",
        "for x in {1, 2}: pass",
        "for x in set(y): pass",
        "for x in a.keys() - b: pass",
        "x = [y for y in {z for z in w}]",
        "x = {y: 1 for y in frozenset(z)}",
        "x = {1}\nfor y in x: pass",
        "x: set[int] = make()\nfor y in x: pass",
        "x: 'set[int] | None' = make()\nfor y in x: pass",
        "def f(x: frozenset[str]):\n    return tuple(x)",
        "def f(x: set[str]):\n    def g():\n        return [y for y in x]",
        "def f() -> set[int]: ...\nfor x in f(): pass",
        "class A:\n    s: frozenset[int]\n    def f(self):\n        for x in self.s: pass",
        "class A:\n    def __init__(self):\n        self.s = set()\n    def f(self):\n        return list(self.s)",
        "class A:\n    def __init__(self):\n        self.s: set[int] = g()\n    def f(self): return self.s.pop()",
        "def f(m: dict[str, set[int]]):\n    for x in m['a']: pass",
        "def f(m: dict[str, set[int]]):\n    for x in m.get('a', ()): pass",
        "x = {1}\ny = ','.join(x)",
        "x = {1}\ny = [*x]",
        "x = {1} | z\ny = next(iter(x))",
        "def f(x: set[int]):\n    yield from x",
        "if (s := {1}):\n    for x in s: pass",
    ],
)
def test_the_core_check_sees(source):
    assert core_faults(source)


@pytest.mark.parametrize(
    "source",
    [
        "from random import Random\ndef f(r: Random): return r.random()",
        "from random import Random\nr = Random(1)",
        "import msgpack\nfrom collections import deque\nfrom replicad.core.model import ids",
        "for x in sorted({1, 2}): pass",
        "for x in [1, 2]: pass",
        "s = {1}\nx = sum(1 for y in s)",
        "s = {1}\nx = sorted(y for y in s if y)",
        "s = {1}\nx = {y for y in s}",
        "s = {1}\nx = {*s, 2}",
        "s = {1}\nx = 1 in s and len(s)",
        "def f(s: set[int]): s.add(1)\ndef g(s: list[int]):\n    for x in s: pass",
        "class A:\n    def __hash__(self):\n        return hash((1, 2))",
        "for x in {'a': 1}: pass",
        "x = [1]\nx.pop()",
    ],
)
def test_the_core_check_lets_pass(source):
    assert core_faults(source) == []


@pytest.mark.parametrize(
    "source",
    [
        "x = 'bring back' in refusal",
        "x = any(words in refusal for words in WORDS)",
        "x = 'bookmark' in failure.message.lower()",
        "x = any('holds data' in each for each in found)",
        "x = os.strerror(28) in str(error)",
        "x = word in (reason or '')",
        "x = word in error.args[0]",
        "x = reason not in reasons",
        "x = text in ('not ready', 'ready')",
        "x = answer == 'it is done'",
        "x = refusal == 'no'",
        "x = sentence.startswith(name)",
        "x = line.startswith('the group')",
        "x = re.search(pattern, str(error))",
        "for name, fields in effects.events:\n    if name in TELLING: pass",
        "for name, _ in effects.events:\n    if name == 'rebuilding': pass",
        "for name, _ in self.out.events:\n    match name:\n        case 'a': pass",
        "x = any(name == 'a' for name, _ in effects.events)",
        "def on_event(self, group, name, fields):\n    if name == 'rebuilding': pass",
    ],
)
def test_the_check_of_words_sees(source):
    assert list(worded_decisions(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "x = refusal.code is RefusalCode.BEHIND",
        "x = error.kind.name == 'conflict'",
        "x = refusal is None or refusal == ''",
        "x = [key for key in message.entries]",
        "x = name in message.members",
        "x = text.startswith('/')",
        "x = ',' in text",
        "for name, fields in effects.events:\n    log.info(name, **fields)",
    ],
)
def test_the_check_of_words_lets_pass(source):
    assert list(worded_decisions(ast.parse(source))) == []


def test_the_other_checks_can_fail():
    assert loose_ends("a = 1  # TO" + "DO: b") == ["line 1: a = 1  # TO" + "DO: b"]
    assert loose_ends("a = 1") == []
    body = "\n".join(["        x = 1"] * FUNCTION_LINES_MAX)
    assert list(long_functions(f"class A:\n    def f(self):\n{body}")) == [("A.f", FUNCTION_LINES_MAX + 1)]
    assert ratchet_faults({"a": 600}, {}) == ["a has 600 lines"]
    assert ratchet_faults({"a": 600}, {"a": 600}) == []
    assert ratchet_faults({"a": 600}, {"a": 700}) == ["a: lower or remove its exception"]
    assert ratchet_faults({}, {"a": 700}) == ["a: lower or remove its exception"]


PROTOCOL_WORDS = {
    *("epoch", "ballot", "slot", "index", "role", "disk", "disk_id", "committed", "applied", "applied_slot"),
    *("promised", "matched", "highest", "view", "lease"),
}
"""What a comparison of is a decision of the protocol: those are made in the core."""


def compared(tree):
    """Yield ``(line, words)`` of comparisons (but ``is``) that have one of the protocol's words as an operand."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare) or all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
            continue
        operands = [part for side in (node.left, *node.comparators) for part in (getattr(side, "elts", None) or [side])]
        words = {getattr(part, "attr", getattr(part, "id", "")) for part in operands} & PROTOCOL_WORDS
        if words:
            yield node.lineno, sorted(words)


def test_a_shell_decides_nothing_of_the_protocol():
    """No file of ``node/`` compares epochs, ballots, slots, indexes, roles or disk ids."""
    shell = sorted((ROOT / "replicad" / "node").glob("*.py"))
    assert len(shell) > 20
    found = [
        f"{path.name} line {line}: {words}" for path in shell for line, words in compared(ast.parse(path.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize("code", ["state.epoch < 3", "(a.slot, 1) == b", "role == 'follower'", "x if slot > y else 1"])
def test_such_a_comparison_is_found(code):
    """In any form that a syntax tree shows."""
    assert list(compared(ast.parse(code)))

"""Partial evaluation: a kernel's source, with all that is known of its arguments worked out.

What depends on known arguments alone is computed (Jones, Gomard and Sestoft, "Partial Evaluation
and Automatic Program Generation", 1993): loops over the rows of a plan are unrolled, branches are
taken, words of the plan become literals. What is left does just what the kernel does, in straight
lines for one feature set.

The evaluator knows the Python that kernels are written in: plain names, numbers, tuples and
subscripts; ``if``, ``while`` and ``for ... in range``. No operand has side effects.
"""

import ast
import inspect
import operator
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from recoup.features.pointers import as_reals, as_words, compiled, compiled_apart, is_seldom

OPERATORS: Final[dict[type[ast.AST], Callable[..., Any]]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_, ast.BitXor: operator.xor, ast.LShift: operator.lshift,
    ast.RShift: operator.rshift, ast.USub: operator.neg, ast.Not: operator.not_,
    ast.Invert: operator.invert, ast.Eq: operator.eq, ast.NotEq: operator.ne,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
SCALARS: Final = (bool, int, float)
PURE: Final[dict[str, Callable[..., Any]]] = {
    "max": max,
    "min": min,
    "as_words": as_words,
    "as_reals": as_reals,
}
TABLE: Final = "TABLE"

Known = dict[str, Any]
Function = Callable[..., Any]
"""A numba dispatcher, or the function itself where the compiler is switched off."""


def specialise(kernel: Function, table: np.ndarray[Any, Any], variants: Sequence[Known]) -> str:
    """Write a module whose ``KERNELS`` are functions with the kernel's parameters.

    Parameters
    ----------
    kernel
        A compiled function. Those it calls are specialised where they are given what is known,
        except those that few events need.
    table
        The only table among what is known.
    variants
        For each function, parameter -> what is known of it. The function ignores what it is given
        for these.

    Examples
    --------
    >>> from recoup.features.memory import copy
    >>> text = specialise(copy, np.zeros(1, np.int64), [{"size": 2}])
    >>> "memory[target + 1] = memory[source + 1]" in text
    True
    """
    program = _Program()
    names = [program.residual(kernel, known, whole=True) for known in variants]
    return program.text(names, table)


class _Program:
    """The functions left over, callees first, and what they import."""

    def __init__(self) -> None:
        self._names: dict[tuple[object, ...], str] = {}
        self._functions: list[str] = []
        self.imports = {
            one.__name__: one.__module__ for one in (as_reals, as_words, compiled, compiled_apart)
        }

    def text(self, names: Sequence[str], table: np.ndarray[Any, Any]) -> str:
        """Give the module."""
        imports = [f"from {self.imports[name]} import {name}" for name in sorted(self.imports)]
        head = ['"""Kernels specialised to one plan."""', "", "import math", ""]
        head += ["import numpy as np", "", *imports, ""]
        head += [f"{TABLE} = np.array({table.tolist()}, np.int64)", ""]
        kernels = f"KERNELS = ({', '.join(names)},)"
        return "\n".join(head) + "\n\n" + "\n\n\n".join([*self._functions, kernels]) + "\n"

    def residual(self, kernel: Function, known: Known, *, whole: bool = False) -> str:
        """Add a function specialised to what is known, if need be, and give its name."""
        function = _plain(kernel)
        key = (function, *((name, _identity(value)) for name, value in known.items()))
        if key not in self._names:
            # The number tells it from the function itself, which may be imported too.
            self._names[key] = f"{function.__name__}_{len(self._names)}"
            body = _Evaluator(self, function, dict(known)).function(whole=whole)
            body.name = self._names[key]
            inline = getattr(kernel, "targetoptions", {}).get("forceinline", False)
            decorator = compiled.__name__ if inline else compiled_apart.__name__
            text = ast.unparse(ast.fix_missing_locations(body))
            self._functions.append(f"@{decorator}\n{text}")
        return self._names[key]


def _plain(kernel: Function) -> Callable[..., Any]:
    return getattr(kernel, "py_func", kernel)


def _identity(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(_identity(one) for one in value)
    if isinstance(value, np.ndarray):
        return value.dtype.str
    return type(value), value


class _Evaluator(ast.NodeTransformer):
    """Evaluates one function; an expression that is known becomes an ``ast.Constant`` of it."""

    def __init__(self, program: _Program, function: Callable[..., Any], known: Known) -> None:
        self._program, self._function, self._known = program, function, known
        self._pinned: list[set[str]] = []

    def function(self, *, whole: bool) -> ast.FunctionDef:
        """Give the function that is left, with all parameters or with the unknown ones."""
        tree = ast.parse(textwrap.dedent(inspect.getsource(self._function))).body[0]
        assert isinstance(tree, ast.FunctionDef)  # noqa: S101
        names = [one.arg for one in tree.args.args if whole or one.arg not in self._known]
        tree.args.args = [ast.arg(name) for name in names]
        tree.decorator_list, tree.returns = [], None
        begins = int(ast.get_docstring(tree) is not None)
        tree.body = self._block(tree.body[begins:]) or [ast.Pass()]
        return tree

    def _block(self, statements: Sequence[ast.stmt]) -> list[ast.stmt]:
        done: list[ast.stmt] = []
        for statement in statements:
            # A loop's body is evaluated once for each turn, so each time from a copy.
            left = self.visit(ast.parse(ast.unparse(statement)).body[0])
            done += left if isinstance(left, list) else [left] if left is not None else []
        return [ast.fix_missing_locations(statement) for statement in done]

    # Expressions.

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if not isinstance(node.ctx, ast.Load):
            return node
        if node.id in self._known:
            return ast.Constant(self._known[node.id])
        value = self._function.__globals__.get(node.id)
        return ast.Constant(value) if isinstance(value, SCALARS) else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        return _computed(node, type(node.op), node.left, node.right)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        return _computed(node, type(node.op), node.operand)

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        if len(node.ops) > 1:
            return node
        return _computed(node, type(node.ops[0]), node.left, node.comparators[0])

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        """Drop operands that decide nothing; one that decides all is the result."""
        deciding = isinstance(node.op, ast.Or)
        left: list[ast.expr] = []
        for operand in node.values:
            one = self.visit(operand)
            if not isinstance(one, ast.Constant):
                left.append(one)
            elif bool(one.value) == deciding:
                return ast.Constant(deciding)
        if not left:
            return ast.Constant(not deciding)
        return left[0] if len(left) == 1 else ast.BoolOp(node.op, left)

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        test = self.visit(node.test)
        if isinstance(test, ast.Constant):
            chosen: ast.expr = self.visit(node.body if test.value else node.orelse)
            return chosen
        return ast.IfExp(test, self.visit(node.body), self.visit(node.orelse))

    def visit_Tuple(self, node: ast.Tuple) -> ast.expr:
        self.generic_visit(node)
        values = [one.value for one in node.elts if isinstance(one, ast.Constant)]
        return _known(tuple(values)) if len(values) == len(node.elts) else node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        if not isinstance(node.value, ast.Constant):
            return node
        assert isinstance(node.slice, ast.Constant), ast.unparse(node.slice)  # noqa: S101
        table: Any = node.value.value
        word = table[node.slice.value]
        return _known(word.item() if isinstance(word, np.generic) else word)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        node.args = [self.visit(one) for one in node.args]
        if not isinstance(node.func, ast.Name):
            return node
        name = node.func.id
        values: list[Any] = [one.value for one in node.args if isinstance(one, ast.Constant)]
        if name in PURE and len(values) == len(node.args):
            return _known(PURE[name](*values))
        called = self._function.__globals__.get(name)
        if called is None:
            return node
        if is_seldom(called) or all(isinstance(value, SCALARS) for value in values):
            self._program.imports[name] = called.__module__
            node.args = [_written(one) for one in node.args]
            return node
        return self._specialised(called, node)

    def _specialised(self, called: Function, node: ast.Call) -> ast.expr:
        """Call with what is unknown only; compute where nothing is."""
        function = _plain(called)
        given = zip(inspect.signature(function).parameters, node.args, strict=True)
        known = {name: one.value for name, one in given if isinstance(one, ast.Constant)}
        if len(known) == len(node.args):
            return _known(function(*known.values()))
        name = self._program.residual(called, known)
        unknown = [one for one in node.args if not isinstance(one, ast.Constant)]
        return ast.Call(ast.Name(name, ast.Load()), unknown, [])

    # Statements.

    def visit_Assign(self, node: ast.Assign) -> ast.stmt | None:
        value, target = self.visit(node.value), node.targets[0]
        if not isinstance(target, ast.Tuple):
            return self._assign([target], [value])
        if isinstance(value, ast.Constant):
            parts: Any = value.value
            return self._assign(target.elts, [_known(part) for part in parts])
        if isinstance(value, ast.Tuple):
            return self._assign(target.elts, value.elts)
        return self._assign([target], [value])

    def _assign(self, targets: Sequence[ast.expr], values: Sequence[ast.expr]) -> ast.stmt | None:
        """Note what is known, and leave what is not."""
        left: list[tuple[ast.expr, ast.expr]] = []
        for target, value in zip(targets, values, strict=True):
            name = target.id if isinstance(target, ast.Name) else ""
            if name and isinstance(value, ast.Constant) and not self._is_pinned(name):
                self._known[name] = value.value
                continue
            for one in _stored([target]):
                self._known.pop(one, None)
            left.append((self.visit(target), value))
        if not left:
            return None
        if len(left) == 1:
            return ast.Assign([left[0][0]], left[0][1])
        names, rest = zip(*left, strict=True)
        return ast.Assign([ast.Tuple(list(names), ast.Store())], ast.Tuple(list(rest), ast.Load()))

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.stmt | None:
        if not isinstance(node.target, ast.Name):
            return ast.AugAssign(self.visit(node.target), node.op, self.visit(node.value))
        name = ast.Name(node.target.id, ast.Load())
        return self._assign([node.target], [self.visit(ast.BinOp(name, node.op, node.value))])

    def visit_For(self, node: ast.For) -> list[ast.stmt]:
        assert isinstance(node.iter, ast.Call)  # noqa: S101
        assert isinstance(node.target, ast.Name)  # noqa: S101
        limits = [self.visit(one) for one in node.iter.args]
        known: list[Any] = [one.value for one in limits if isinstance(one, ast.Constant)]
        if len(known) == len(limits) and not _jumps(node):
            done: list[ast.stmt] = []
            for turn in range(*known):
                self._known[node.target.id] = turn
                done += self._block(node.body)
            return done
        node.iter.args = limits
        done = self._pin([node.target, *node.body])
        node.body = self._block(node.body)
        return self._unpin(done, node)

    def visit_While(self, node: ast.While) -> list[ast.stmt]:
        done = self._pin(node.body)
        node.test = self.visit(node.test)
        node.body = self._block(node.body)
        return self._unpin(done, node)

    def visit_If(self, node: ast.If) -> list[ast.stmt]:
        test = self.visit(node.test)
        if isinstance(test, ast.Constant):
            return self._block(node.body if test.value else node.orelse)
        done = self._pin([*node.body, *node.orelse])
        body = self._block(node.body) or [ast.Pass()]
        return self._unpin(done, ast.If(test, body, self._block(node.orelse)))

    def _is_pinned(self, name: str) -> bool:
        return any(name in names for names in self._pinned)

    def _pin(self, statements: Sequence[ast.AST]) -> list[ast.stmt]:
        """Make unknown, from here on, what statements assign that may run or not, or often."""
        names = _stored(statements)
        self._pinned.append(names)
        return [
            ast.Assign([ast.Name(name, ast.Store())], _written(_known(self._known.pop(name))))
            for name in sorted(names & set(self._known))
        ]

    def _unpin(self, done: list[ast.stmt], statement: ast.stmt) -> list[ast.stmt]:
        self._pinned.pop()
        return [*done, statement]


def _known(value: Any) -> ast.Constant:  # noqa: ANN401 - a number, a table or a tuple of such
    return ast.Constant(value)


def _written(node: ast.expr) -> ast.expr:
    """Write down what is known, tables included."""
    if not isinstance(node, ast.Constant):
        return node
    value: Any = node.value
    if isinstance(value, tuple):
        return ast.Tuple([_written(_known(one)) for one in value], ast.Load())
    if not isinstance(value, np.ndarray):
        return node
    view = as_reals if value.dtype == np.float64 else as_words
    table = ast.Name(TABLE, ast.Load())
    return ast.Call(ast.Name(view.__name__, ast.Load()), [table], [])


def _stored(nodes: Sequence[ast.AST]) -> set[str]:
    """Give the names that are assigned."""
    every = [one for node in nodes for one in ast.walk(node)]
    return {one.id for one in every if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}


def _jumps(loop: ast.For) -> bool:
    return any(isinstance(one, ast.Break | ast.Continue) for one in ast.walk(loop))


def _computed(node: ast.expr, operation: type[ast.AST], *operands: ast.expr) -> ast.expr:
    values: list[Any] = [one.value for one in operands if isinstance(one, ast.Constant)]
    if len(values) < len(operands) or operation not in OPERATORS:
        return node
    return _known(OPERATORS[operation](*values))


__all__ = ["specialise"]

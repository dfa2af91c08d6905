"""The calculator that a model may call in its answer.

    <|python_start|> 1,234 * 3 <|python_end|>   is followed by   <|output_start|> 3702 <|output_end|>

* Arithmetic: numbers with + - * / // and parentheses; commas between digits are taken out of the numbers.
* Counting: `'strawberry'.count('r')`, also after `.lower()` or `.upper()`.
* An expression is parsed and its tree walked; nothing is evaluated. There are no powers, and an expression has 1,000
  characters at most, so that a result takes microseconds and no number has more digits than the expression.
* No signals and no state: any thread may call.

nanochat's calculator, but that commas inside quotes stay, and that it works outside the main thread too.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable

from megatron_iberis.tokenizer import Tokenizer

LONGEST = 1000
"""Characters of an expression."""
_LONGEST_RESULT = 100
_DEEPEST = 100  # nested operations
_ARITHMETIC = frozenset("0123456789.+-*/() ")
# A quoted text, which stays as it is, or a comma between digits.
_TEXT_OR_COMMA = re.compile(r"""'[^']*'|"[^"]*"|(?<=[0-9]),(?=[0-9])""")
_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def calculate(expression: str) -> str | None:
    """What Python prints for the expression; None where there is no result: not arithmetic, not finite, too long."""
    if len(expression) > LONGEST or "\\" in expression:
        return None
    expression = _TEXT_OR_COMMA.sub(lambda found: "" if found[0] == "," else found[0], expression).strip(" ")
    try:
        tree = ast.parse(expression, mode="eval").body
        result = _number(tree, 0) if _ARITHMETIC.issuperset(expression) else _count(tree)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None  # ast says ValueError for a NUL, MemoryError for too many parentheses
    if result is None or (isinstance(result, float) and not math.isfinite(result)):
        return None
    text = str(result)
    return text if len(text) <= _LONGEST_RESULT else None


def _number(node: ast.AST, depth: int) -> int | float | None:
    if depth > _DEEPEST:
        return None
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _number(node.operand, depth + 1)
        return value if value is None or isinstance(node.op, ast.UAdd) else -value
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = _number(node.left, depth + 1), _number(node.right, depth + 1)
        return None if left is None or right is None else _BINARY[type(node.op)](left, right)
    return None


def _count(node: ast.AST) -> int | None:
    """Of 'a text'.count('a text')."""
    name, text, arguments = _called(node)
    if name != "count" or len(arguments) != 1 or (part := _text(arguments[0])) is None:
        return None
    found = _text(text)
    return None if found is None else found.count(part)


def _text(node: ast.AST | None) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    name, text, arguments = _called(node)
    if name not in ("lower", "upper") or arguments or (found := _text(text)) is None:
        return None
    return found.lower() if name == "lower" else found.upper()


def _called(node: ast.AST | None) -> tuple[str, ast.AST | None, list[ast.expr]]:
    """Method, object and arguments of a call; no name if it is none, or one with named arguments."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.keywords:
        return node.func.attr, node.func.value, node.args
    return "", None, []


class ToolUse:
    """Follows the ids of one answer and says which to put in where a call of the calculator has ended."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        specials = tokenizer.specials
        self._start, self._end = specials["<|python_start|>"], specials["<|python_end|>"]
        self._output = specials["<|output_start|>"], specials["<|output_end|>"]
        self._call: list[int] | None = None

    def push(self, token: int) -> list[int]:
        """The ids that follow `token` by force: the result between its marks, nothing where there is none."""
        if token == self._start:
            self._call = []
        elif token == self._end and self._call is not None:
            result = calculate(self._tokenizer.decode(self._call))
            self._call = None
            if result is not None:
                return [self._output[0], *self._tokenizer.encode(result), self._output[1]]
        elif self._call is not None:
            self._call.append(token)
        return []

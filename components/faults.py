"""What is wrong with a YAML file that people edit: every fault with its line, what was found and what is expected."""

from __future__ import annotations

import difflib
import re
from typing import Any

from pydantic import BaseModel, ValidationError


def faults(error: ValidationError, raw: Any, file: str, model: type[BaseModel]) -> list[tuple[int, str]]:
    """(line, message) of each fault that `model` found in the YAML of a file."""
    return [fault(raw, file, e["loc"], _expectation(e, e["loc"], model)) for e in error.errors()]


def fault(raw: Any, file: str, loc: tuple[Any, ...], text: str) -> tuple[int, str]:
    """(line, message) of a fault at `loc`; the line is that of the deepest key on its way that exists."""
    line, path = 1, []
    here: Any = raw
    for key in loc:
        if isinstance(key, str) and (
            key.startswith("function-") or key in ("Range", "[key]", "float", "str") or key.startswith("list[")
        ):
            continue  # pydantic's own marks for a branch of a union
        path.append(str(key))
        try:
            mark = here.lc.key(key) if hasattr(here, "keys") else here.lc.item(key)
            line, here = mark[0] + 1, here[key]
        except (KeyError, IndexError, AttributeError, TypeError):
            here = None
    return line, f"{file}:{line} {'.'.join(path)}: {text}"


def wanted(got: str, known: Any, what: str) -> str:
    return f"got {got!r}, expected {what}{suggest(got, known, '; ')}"


def suggest(got: str, known: Any, lead: str = "") -> str:
    close = difflib.get_close_matches(str(got), [str(k) for k in known], 1, 0.5)
    if close:
        return f"{lead}did you mean {close[0]!r}?"
    return f"{lead}known: {', '.join(map(str, known))}" if known else ""


_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "keys and values",
    "model_type": "keys and values",
}


def _expectation(error: Any, loc: tuple[Any, ...], model: type[BaseModel]) -> str:
    kind, got = error["type"], error.get("input")
    if kind == "extra_forbidden":
        return f"got an unknown key{suggest(str(loc[-1]), _keys_at(loc[:-1], model), '; ')}"
    if kind == "missing":
        return "got nothing, expected a value"
    if kind == "string_pattern_mismatch":
        return f"got {shown(got)}, expected a name of letters, digits, - and _ (63 at most)"
    if kind == "literal_error":
        expected = re.findall(r"'([^']+)'", error["ctx"]["expected"])
        return f"got {shown(got)}, expected one of {', '.join(expected)}{suggest(str(got), expected, '; ')}"
    message = _EXPECTED.get(kind) or re.sub(r"^Input should be (a )?(valid )?", "", error["msg"])
    return f"got {shown(got)}, expected {message}"


def _keys_at(loc: tuple[Any, ...], root: type[BaseModel]) -> list[str]:
    """The keys that a block knows, found by walking the models along `loc`."""
    model: Any = root
    for key in loc:
        if isinstance(model, type) and issubclass(model, BaseModel):
            if key not in model.model_fields:
                return []
            model = model.model_fields[key].annotation
        else:
            arguments = getattr(model, "__args__", ())
            model = arguments[-1] if arguments else None
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

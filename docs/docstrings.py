"""Extension of Griffe, which reads the docstrings for the reference.

Examples become blocks of code, public names become links, and classes show the arguments of their constructors.
"""

import ast
import dataclasses
import inspect
import re

import griffe

import lejax


EXAMPLE = re.compile(r"^(?P<indent> *)>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?<![\[`])`(?:lejax\.)?([\w.]+)`(?![\]`])")


class LinkedDocstrings(griffe.Extension):
    """Fence the examples, which begin with `>>>` and end at a blank line, and link public names."""

    def __init__(self) -> None:
        self._paths = _public_paths()

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring:
            linked = CODE.sub(lambda match: self._link(match, obj.name), obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub(_fence, linked)

    def on_class(self, *, cls: griffe.Class, **_) -> None:
        path = self._paths.get(cls.name)
        if path is None or "__init__" in cls.members:
            return
        kind = _resolve(path)
        if dataclasses.is_dataclass(kind) and not inspect.isabstract(kind):
            arguments = [_argument(cls, p) for p in inspect.signature(kind).parameters.values()]
            cls.set_member(
                "__init__", griffe.Function("__init__", parameters=griffe.Parameters(*arguments))
            )

    def _link(self, match: re.Match, own_name: str) -> str:
        path = self._paths.get(match[1])
        return match[0] if path is None or match[1] == own_name else f"[{match[0]}][{path}]"


def _public_paths() -> dict[str, str]:
    """The full name of each public name, by its full and its last part, with and without its folder."""
    paths = {}
    for name in lejax.__all__:
        value = getattr(lejax, name)
        if not inspect.ismodule(value):
            paths[name] = f"lejax.{name}"
            continue
        for inner in value.__all__:
            paths[inner] = paths[f"{name}.{inner}"] = f"lejax.{name}.{inner}"
    return paths


def _resolve(path: str) -> type:
    value = lejax
    for name in path.split(".")[1:]:
        value = getattr(value, name)
    return value


def _argument(cls: griffe.Class, parameter: inspect.Parameter) -> griffe.Parameter:
    """A field as an argument, with the annotation and the default that stand in the source."""
    field = cls.members.get(parameter.name)
    return griffe.Parameter(
        parameter.name,
        annotation=None if field is None else field.annotation,
        kind=griffe.ParameterKind[parameter.kind.name.lower()],
        default=None if parameter.default is parameter.empty else _default(field, parameter),
    )


def _default(field: griffe.Attribute | None, parameter: inspect.Parameter) -> str:
    """The default value in `x = 1`, `x = eqx.field(default=1)` or `x = parameter(1)`."""
    if field is None:
        return repr(parameter.default)
    value = ast.parse(str(field.value), mode="eval").body
    if isinstance(value, ast.Call):
        function = ast.unparse(value.func)
        if function == "eqx.field":
            value = next(k.value for k in value.keywords if k.arg == "default")
        elif function == "parameter":
            value = value.args[0]
    return ast.unparse(value)


def _fence(match: re.Match) -> str:
    return f"{match['indent']}```pycon\n{match[0]}\n{match['indent']}```"

"""Settings as tables: pydantic models read from defaults, a preset, TOML and flags, in this order.

Unknown keys are refused, with the nearest valid name.
"""

import dataclasses
import difflib
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    model_validator,
)

from echogen.errors import UsageError
from echogen.support.reading import read_toml
from echogen.support.words import one_line

MOST_TABLES = 8  # within each other that a name may go through
MOST_BYTES = 2**20
"""Of a file of settings, so that no list of what is wrong in it takes gigabytes."""
Presets = Mapping[str, Mapping[str, Any]]
Config = TypeVar("Config", bound="Settings")


class Settings(BaseModel):
    """A frozen table of settings; unknown keys and numbers that are not finite are refused.

    `presets` are choices of them by name, of which "balanced" is the default. Others with the same
    names may be given to `load_config` where a choice depends on the settings themselves.
    """

    presets: ClassVar[Presets] = {}

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, given: Any) -> Any:
        """Pydantic would take it as 1, and its strict mode would refuse a number as text, too."""
        if not isinstance(given, Mapping):
            return given
        numbers = {
            name
            for name, field in cls.model_fields.items()
            if (int in (kinds := _kinds_within(field.annotation)) or float in kinds)
            and bool not in kinds
        }
        return {
            name: _as_text(value) if name in numbers else value for name, value in given.items()
        }


def _as_text(value: Any) -> Any:
    """Switches, which are no numbers, as the text that is none either."""
    if isinstance(value, (list, tuple)):
        return [_as_text(one) for one in value] if bool in map(type, value) else value
    return str(value).lower() if isinstance(value, bool) else value


def _kinds_within(annotation: Any) -> list[Any]:
    """The types that an annotation is made of: `int | None`, `tuple[float, float]`."""
    inner = get_args(annotation)
    return [annotation, *(kind for one in inner for kind in _kinds_within(one))]


def _names(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
"""Several names: a sequence, or one text with commas between them."""


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `override` laid over it, tables merged key by key.

    A sampler with another `name` replaces the one below: it has other settings.
    """
    merged = dict(base)
    for key, value in override.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            if key == "sampler" and value.get("name", below.get("name")) != below.get("name"):
                below = {}
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def load_config(
    kind: type[Config],
    flags: Mapping[str, Any],
    *,
    preset: str | None = None,
    file: Config | str | Path | None = None,
    shared: tuple[str, type[Settings]] | None = None,
    choose: Callable[[Mapping[str, Any]], Presets] | None = None,
) -> Config:
    """The resolved settings of a command: defaults, then preset, then file, then flags.

    Args:
        kind: the command's configuration.
        flags: settings that win over all others. A setting of a table may stand without its table
            (`views`), where no other has it, or with it (`sampler.churn`, or a nested table). None
            leaves a setting as it is.
        preset: by name; None takes the default one.
        file: TOML with settings, or a configuration, of which what was set counts.
        shared: a table's name, and the configuration of another command that has it: of a file,
            which is written for that command, this table alone is taken.
        choose: from the settings of file and flags, unchecked, to the presets that apply; None
            takes the configuration's own, whose names any others must have.

    Raises:
        UsageError: no such preset, the file cannot be read, a key is unknown, or a value is out of
            range.
    """
    if preset is not None and preset not in kind.presets:
        known = ", ".join(kind.presets)
        raise UsageError(f"--preset {preset}: unknown; expected one of {known}.")
    source, below = "settings", {}
    if isinstance(file, (str, Path)):
        source, below = f"--config {file}", _read(Path(file))
        if shared is not None:
            below = _of_table(*shared, below, source)
    elif file is not None:
        below = _set_in(file)
    below, above = _nested(kind, below), _nested(kind, flags)
    presets = kind.presets if choose is None else choose(merge(below, above))
    settings = merge(presets.get(preset or "balanced", {}), below)
    try:
        return kind.model_validate(merge(settings, above))
    except ValidationError as error:
        cause = error.errors()[0].get("ctx", {}).get("error")
        if isinstance(cause, UsageError):
            raise cause from error
        raise UsageError(f"{source}: {explain(error, kind)}") from error


def _of_table(
    table: str, written_for: type[Settings], found: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """The settings of one table among those of a file, its keys with or without the table."""
    places = _places(written_for)
    taken = {}
    for key, value in found.items():
        place = places.get(key.split(".")[0])
        if place is None:
            raise UsageError(f"{source}: unknown key {key!r}; {_hint([key], written_for, '')}")
        if place[0] == table:
            taken[key] = value
    return taken


def _nested(kind: type[Settings], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Flags as the tables of a configuration."""
    places = _places(kind)
    nested: dict[str, Any] = {}
    for key, value in flags.items():
        if value is None:
            continue
        path = key.split(".", MOST_TABLES) if "." in key else places.get(key, (key,))
        value = {"name": value} if key == "sampler" and isinstance(value, str) else _set_in(value)
        for name in reversed(path):
            value = {name: value}
        nested = merge(nested, value)
    return nested


def _places(kind: type[Any]) -> dict[str, tuple[str, ...]]:
    """{setting: its place, tables first}; a name that two tables have is the first one's."""
    types: dict[str, Any] = {}
    if issubclass(kind, Settings):
        types = {name: field.annotation for name, field in kind.model_fields.items()}
    elif dataclasses.is_dataclass(kind):
        types = {field.name: field.type for field in dataclasses.fields(kind)}
    places: dict[str, tuple[str, ...]] = {name: (name,) for name in types}
    for table, inner in types.items():
        for name, place in _places(inner).items() if isinstance(inner, type) else ():
            places.setdefault(name, (table, *place))
    return places


def _set_in(value: Any) -> Any:
    """A table as a dictionary of what was set in it; any other value as a file would have it."""
    if isinstance(value, Settings):
        named = {"name": value.name} if "name" in type(value).model_fields else {}  # type: ignore[attr-defined]
        return named | {name: _set_in(getattr(value, name)) for name in value.model_fields_set}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value) if isinstance(value, Path) else value


def _read(file: Path) -> dict[str, Any]:
    name = f"--config {file}"
    try:
        return read_toml(file, UsageError, name, most=MOST_BYTES)
    except FileNotFoundError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror}).") from error


def explain(error: ValidationError, config: type[BaseModel]) -> str:
    """The first thing wrong with a table that should be a `config`, in one line."""
    # A key that is missing may only be misspelled: an unknown one says more.
    first = min(error.errors(), key=lambda each: each["type"] == "missing")
    loc = [one_line(str(part), 100) for part in first["loc"]]
    # The place of an error in a table that is one of several kinds names it: (sampler, dpm, rho).
    kinds = _kinds(config, loc[0]) if loc else {}
    kind = loc.pop(1) if len(kinds) > 1 and kinds.keys() & loc[1:2] else ""
    where = ".".join(loc)
    if first["type"] == "missing":
        flag = {"input": "--in", "output": "--out"}.get(where)
        how = "; give it as a flag or in the configuration file." if flag else ""
        return f"{flag or repr(where)} is missing{how}"
    if first["type"].startswith("union_tag"):
        given = first["input"]
        found = given.get("name") if isinstance(given, Mapping) else None
        return f"{where}: expected one of {', '.join(kinds)}; got {shown(found or given)}"
    if first["type"] == "extra_forbidden":
        of = f" of {loc[0]} {kind}" if kind else ""
        return f"unknown key {where!r}{of}; {_hint(loc, config, kind)}"
    message = in_words(first)
    got = "" if "got" in message else f" (got {shown(first['input'])})"
    return f"{where}: {message}{got}" if where else f"{message}{got}"


def in_words(found: Mapping[str, Any]) -> str:
    """What was expected, in plain words, of one of a `ValidationError`'s errors."""
    if expected := _EXPECTED.get(found["type"]):
        return f"expected {expected}".format(**found.get("ctx", {}))
    return one_line(found["msg"].removeprefix("Value error, "), 500)


_EXPECTED = {
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type", "dataclass_type",
                     "mapping_type"), "a table"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    "string_type": "text", "path_type": "a path", "finite_number": "a finite number",
    "too_short": "at least {min_length} values", "too_long": "at most {max_length} values",
}  # fmt: skip


def shown(value: Any) -> str:
    """A value as a message shows it: in at most 100 characters, whatever it is."""
    try:
        return _SHORT.repr(value)[:100]
    except ValueError:  # Python writes no whole number of thousands of digits
        return "a number of thousands of digits"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = _SHORT.maxfrozenset = 30


def _kinds(table: Any, name: str) -> dict[str, Any]:
    """{name: kind} of the tables that a setting may hold: those of a union carry theirs."""
    field = table.model_fields.get(name)
    kinds = [field.annotation, *get_args(field.annotation)] if field else []
    tables = [kind for kind in kinds if hasattr(kind, "model_fields")]
    return {
        kind.model_fields["name"].default if "name" in kind.model_fields else name: kind
        for kind in tables
    }


def _hint(loc: Sequence[str], config: type[BaseModel], kind: str) -> str:
    """Where a key that is unknown in its table may belong."""
    *tables, key = loc
    table: Any = config
    kinds: dict[str, Any] = {}
    for name in tables:
        kinds = _kinds(table, name)
        table = kinds.get(kind) or next(iter(kinds.values()), table)
    names = table.model_fields if tables else _places(table)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.4)
    others = [name for name, other in kinds.items() if kind and key in other.model_fields]
    if others:
        return f"it belongs to --{tables[-1]} {others[0]}."
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(table.model_fields)}."


def to_toml(config: Settings) -> str:
    """The resolved configuration as a TOML document that `load_config` reads back."""
    import tomli_w

    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))

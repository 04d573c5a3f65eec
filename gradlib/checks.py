"""Values as they are checked: the types of fields, names that folders can have, errors of one line."""

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cache, partial
from typing import Annotated, get_type_hints

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field

FOLDER_NAME = re.compile(r"[^\W_][\w.,=+-]*")  # matplotlib leaves labels that begin with _ out of legends
RESERVED_NAME = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # by Windows
MAX_NAME_BYTES = 200  # file systems take 255
PAGES_FOLDER, SEARCH_FOLDER = "pages", "search"  # in the folder of a study, beside its solutions
MAX_COUNT = 10**6  # of epochs, frames, seeds: more is a slip


def closest(unknown: str, known: Iterable[str]) -> str:
    """The hint that ends an error about an unknown name: the nearest known one, then all of them."""
    known = list(known)
    near = difflib.get_close_matches(str(unknown), known, n=1)
    return (f" (did you mean {near[0]!r}?)" if near else "") + f"; known: {', '.join(known)}"


def check_folder_name(name: object, what: str) -> str:
    """`name`, if a folder can have it on every system and it is no path; else ValueError, beginning with
    `what`."""
    if not isinstance(name, str) or not FOLDER_NAME.fullmatch(name) or name.endswith("."):
        raise ValueError(f"{what} {name!r}: take letters, digits, '-', '_' and '.', no path")
    if (size := len(name.encode())) > MAX_NAME_BYTES:
        raise ValueError(f"{what} {name[:40]!r}...: has {size} bytes; take at most {MAX_NAME_BYTES}")
    if what == "solution" and name.lower() in (PAGES_FOLDER, SEARCH_FOLDER):
        raise ValueError(f"{what} {name!r}: a study has a folder of this name; take another")
    if RESERVED_NAME.fullmatch(name):
        raise ValueError(f"{what} {name!r}: means a device on Windows; take another")
    return name


def first_error(error: pydantic.ValidationError) -> str:
    """The first error that pydantic found, in one line: `entry 0: view: expected integer, got 0.5`."""
    first = error.errors(include_url=False)[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    where = re.sub(r"^\[(\d+)\]\.?", r"entry \1: ", repr(where)[1:-1]).strip(".: ")[:200]
    text = re.sub(r"^\w+ should (be|have) (a valid )?", "expected ", first["msg"])
    text = re.sub(r"^Value error, | or instance of \w+| after validation.*|, unable to .*", "", text)
    text = text.replace("Field required", "missing")
    if first["type"] not in ("missing", "value_error"):
        text += f", got {shortened(first['input'])}"
    return f"{where}: {text}" if where else text


def shortened(value: object) -> str:
    """A value found, as a message shows it."""
    return reprlib.repr(value)[:80]


@cache
def field_types(kind: type) -> dict:
    """The type of each field of a dataclass, by name."""
    return get_type_hints(kind, include_extras=True)


@cache
def _model(kind: type) -> type[pydantic.BaseModel]:
    return pydantic.create_model(kind.__name__, **{name: (of, ...) for name, of in field_types(kind).items()})


class Checked:
    """A dataclass whose values have the types of its fields: 12 for the text "12", as papermill hands it on.

    Raises ValueError in one line that names the field, the value and what is expected.
    """

    def __post_init__(self):
        try:
            checked = _model(type(self)).model_validate(vars(self))
        except pydantic.ValidationError as error:
            raise ValueError(first_error(error)) from None
        for name, value in checked:
            object.__setattr__(self, name, value)

    @classmethod
    def from_mapping(cls, values: Mapping):
        """Made of what `values` holds of its fields, as a notebook's `globals()`; the rest default."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})


def is_known(value: str, known: Iterable[str]) -> str:
    if value not in known:
        raise ValueError(f"unknown {value!r}{closest(value, known)}")
    return value


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"expected number, got {value}")
    return value


def _is_stride(value: int) -> int:
    if value % 32:
        near = max(32, round(value / 32) * 32)
        raise ValueError(f"expected a multiple of 32, the network's largest stride, got {value}; take {near}")
    return value


def _any_above_zero(values: tuple[float, ...]) -> tuple[float, ...]:
    if not any(values):
        raise ValueError(f"expected a weight above 0, got {values}")
    return values


def Known(*known: str) -> object:
    """The type of one of these names."""
    return Annotated[str, AfterValidator(partial(is_known, known=known))]


Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=MAX_COUNT)]
Seed = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, lt=2**32)]  # as the libraries take
Positive = Annotated[Count, Field(ge=1)]
NotNegative = Annotated[Number, Field(ge=0)]
Rate = Annotated[Number, Field(gt=0, le=1)]
Alpha = Annotated[NotNegative, Field(le=10)]
ImageSize = Annotated[Positive, AfterValidator(_is_stride), Field(le=4096)]
Share = Annotated[Number, Field(ge=0, le=1)]
Weights = Annotated[tuple[NotNegative, ...], AfterValidator(_any_above_zero)]

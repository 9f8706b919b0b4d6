"""Options are declared once; values of any origin end in the declared type or in a clear error."""

import enum
import os
import sys
from dataclasses import dataclass, make_dataclass
from typing import List, Optional, Tuple, Union

import pytest

from ipucnn.core.errors import PluginError, UsageError
from ipucnn.core.options.building import Source, build
from ipucnn.core.options.composition import as_dict, changed
from ipucnn.core.options.declaration import declared, lookup, option


@dataclass(frozen=True)
class Options:
    count: int = option(4, "How many.", minimum=1, maximum=9, names=("--number", "--num-items"))
    rate: float = option(0.5, "How fast.", exclusive_minimum=0.0)
    limit: Optional[float] = option(None, "How long.")
    name: str = option("a", "Which.", names=("--label",))
    place: Optional[str] = option(None, "Where to.", metavar="FILE")
    prefix: str = option("", "What before.")
    names: Tuple[str, ...] = option((), "Which ones.")
    precision: str = option("16.16", "p", choices={"half": "16.16", "16.16": "16.16"})
    level: int = option(1, "l", choices={"1": "1", "2": "2"})
    splits: Tuple[str, ...] = option((), "Where.")
    sizes: Tuple[int, ...] = option((), "s", minimum=1)
    room: Optional[int] = option(None, "How much.", size=True, minimum=1)
    fast: bool = option(False, "Hurry.")
    half: Optional[bool] = option(None, "Perhaps.")
    json: bool = option(False, "Print.", switch=True)


def value(**given):
    (name,) = given
    return getattr(build(Options, given), name)


@pytest.mark.parametrize(("given", "expected"), [
    ({"count": 3}, 3), ({"count": "3"}, 3), ({"count": 3.0}, 3), ({"count": "3e0"}, 3),
    ({"rate": "1e-3"}, 0.001), ({"rate": 2}, 2.0), ({"rate": "2"}, 2.0),
    ({"limit": None}, None), ({"limit": "7.5"}, 7.5),
    ({"room": "20G"}, 20 * 10**9), ({"room": "1.5 kB"}, 1500), ({"room": "2MiB"}, 2 << 20),
    ({"room": "1Ti"}, 1 << 40), ({"room": 700}, 700), ({"room": "700"}, 700),
    ({"name": 18}, "18"), ({"name": "x y"}, "x y"), ({"prefix": ""}, ""),
    ({"precision": "HALF"}, "16.16"), ({"precision": 16.16}, "16.16"), ({"level": "2"}, 2),
    ({"level": 2}, 2),
    ({"splits": "a/1 b/2"}, ("a/1", "b/2")), ({"splits": ["a", "b"]}, ("a", "b")),
    ({"sizes": range(3, 5)}, (3, 4)), ({"splits": ()}, ()),
    ({"sizes": 3}, (3,)), ({"sizes": "3 4"}, (3, 4)),
    ({"fast": True}, True), ({"fast": "yes"}, True), ({"fast": "Off"}, False),
    ({"half": None}, None), ({"half": False}, False),
])
def test_values_take_the_declared_type(given, expected):
    found = value(**given)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(("given", "message"), [
    ({"count": "many"}, "'--count': 'many' is not a whole number"),
    ({"count": "2K"}, "'--count': '2K' is not a whole number"),
    ({"room": "20X"}, "'--room': '20X' is not a number of bytes"),
    ({"room": "0K"}, "'--room': '0K' is too small"),
    ({"count": 2.5}, "'--count': 2.5 is not a whole number"),
    ({"count": True}, "'--count': True is not a whole number"),
    ({"count": "inf"}, "'--count': 'inf' is not a whole number"),
    ({"count": 0}, "'--count': 0 is too small"),
    ({"count": -1}, "'--count': -1 is too small"),
    ({"count": 10}, "'--count': 10 is too large"),
    ({"count": None}, "'--count' needs a value"),
    ({"count": [1, 2]}, "'--count': [1, 2] is not a whole number"),
    ({"rate": 0}, "'--rate': 0 is too small"),
    ({"rate": "nan"}, "'--rate': 'nan' is not a finite number"),
    ({"rate": float("inf")}, "'--rate': inf is not a finite number"),
    ({"rate": "1e-3x"}, "'--rate': '1e-3x' is not a number"),
    ({"name": {"a": 1}}, "'--name': {'a': 1} is not text"),
    ({"name": True}, "'--name': True is not text"),
    ({"name": ""}, "'--name' is empty"),
    ({"place": " "}, "'--place' is empty"),
    ({"place": "a\0b"}, "contains the character NUL"),
    ({"names": ["a", ""]}, "'--names' is empty"),
    ({"precision": "hallf"}, "'--precision': 'hallf' is not one of its values"),
    ({"sizes": "3 zero"}, "'--sizes': 'zero' is not a whole number"),
    ({"sizes": [3, 0]}, "'--sizes': 0 is too small"),
    ({"fast": "perhaps"}, "'--fast': 'perhaps' is not true or false"),
    ({"fast": 1}, "'--fast': 1 is not true or false"),
])
def test_wrong_values_are_named(given, message):
    with pytest.raises(UsageError) as caught:
        build(Options, given)
    assert message in caught.value.message
    assert caught.value.exit_code == 2


def test_hints_name_a_remedy():
    with pytest.raises(UsageError) as caught:
        build(Options, {"precision": "hallf"})
    assert "did you mean 'half'?" in caught.value.hint
    assert "values: half, 16.16" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        build(Options, {"count": 99})
    assert caught.value.hint == "the largest value is 9"


@pytest.mark.parametrize("spelling", ["count", "--count", "number", "num-items", "num_items",
                                      "NUM_ITEMS", "--num-items"])
def test_every_spelling_means_the_option(spelling):
    assert build(Options, {spelling: 2}).count == 2
    assert lookup(Options, spelling).name == "count"


def test_what_is_not_an_option_is_refused_with_its_origin():
    with pytest.raises(UsageError, match=r"unknown option 'cuont' \(p.yaml, line 3\)") as caught:
        build(Options, Source({"cuont": 2}, {"cuont": "p.yaml, line 3"}))
    assert "did you mean 'count'" in caught.value.hint
    with pytest.raises(UsageError, match=r"is too small \(p.yaml, line 9\)"):
        build(Options, Source({"count": 0}, {"count": "p.yaml, line 9"}))


def test_later_sources_win_whatever_the_spelling():
    assert build(Options, {"count": 2, "rate": 3}, {"number": 5}) == build(
        Options, {"count": 5, "rate": 3})
    assert build(Options) == Options()


def test_numbers_may_have_commas_between_them():
    for given in ("1,2,3", "1 2 3", "1, 2, 3", ["1,2", "3"], [1, 2, 3]):
        assert build(Options, {"sizes": given}).sizes == (1, 2, 3)
    assert build(Options, {"splits": ["a,b"]}).splits == ("a,b",)


def test_declarations_keep_order_flags_and_shape():
    found = {item.name: item for item in declared(Options)}
    assert list(found)[:3] == ["count", "rate", "limit"]
    assert found["count"].flags == ("--count", "--number", "--num-items")
    assert found["splits"].many
    assert not found["splits"].nullable
    assert found["half"].nullable
    assert found["half"].boolean
    assert found["sizes"].type is int


def test_saved_settings_build_the_same_options():
    options = build(Options, {"splits": "a b", "rate": 1e-3, "half": True, "json": True})
    saved = as_dict(options)
    assert "json" not in saved
    assert saved["splits"] == ["a", "b"]
    assert build(Options, saved, {"json": True}) == options


def test_changed_are_those_that_differ_from_their_default():
    options = build(Options, {"count": 4, "rate": 0.25, "splits": "a"})
    assert [item.name for item in changed(options)] == ["rate", "splits"]


def test_two_spellings_of_one_option_in_one_source_are_refused():
    with pytest.raises(UsageError, match=r"'num_items' and 'count' are spellings of one option "
                                         r"\(p.yaml, line 2\)") as caught:
        build(Options, Source({"count": 2, "num_items": 2}, {"num_items": "p.yaml, line 2"}))
    assert caught.value.hint == "keep one of them"


@dataclass(frozen=True)
class Plain:
    plain: int = 3


@dataclass(frozen=True)
class Listed:
    values: List[int] = option((), "v")  # noqa: RUF009


@dataclass(frozen=True)
class Either:
    values: Optional[Union[int, str]] = option(None, "v")


@dataclass(frozen=True)
class Unset:
    values: str = option("x", "v", choices={"none": None, "x": "x"})


@dataclass(frozen=True)
class Pair:
    values: Tuple[int, int] = option((1, 2), "v")


@dataclass(frozen=True)
class Bare:
    values: Tuple = option((), "v")


@pytest.mark.parametrize(("options_class", "message"), [
    (Bare, "field 'values' of Bare is of type typing.Tuple, expected bool, int, float"),
    (Pair, "field 'values' of Pair is of type typing.Tuple[int, int], expected bool, int, float"),
    (Either, "field 'values' of Either is of type "),
    (Unset, "field 'values' of Unset has a choice that means None, expected Optional"),
    (Plain, "field 'plain' of Plain is not declared with 'ipucnn.option'"),
    (Listed, "field 'values' of Listed is of type typing.List[int], expected bool, int, float"),
])
def test_fields_that_are_no_options_are_refused(options_class, message):
    with pytest.raises(PluginError) as caught:
        declared(options_class)
    assert message in caught.value.message


@pytest.mark.parametrize(("details", "message", "hint"), [
    ({"minimun": 0}, "an option has no attribute 'minimun'", "did you mean 'minimum'"),
    ({"xyzzy": 0}, "an option has no attribute 'xyzzy'", "attributes: help, group, names"),
    ({"only": "export"}, "an option's 'only' is 'export'", ""),
    ({"fixed": "never"}, "an option's 'fixed' is 'never', expected one of 'model', 'state'", ""),
    ({"names": ("--decay")}, "'names' is '--decay', expected a tuple such as ('--decay',)", ""),
    ({"names": ("decay",)}, "an option's 'names' has 'decay', expected a flag", ""),
    ({"names": ("--a/--b",)}, "an option's 'names' has '--a/--b', expected a flag", ""),
    ({"words": "auto"}, "an option's 'words' is 'auto', expected a tuple", ""),
    ({"words": (1,)}, "an option's 'words' is (1,), expected strings", ""),
    ({"metavar": int}, "an option's 'metavar' is <class 'int'>, expected text", ""),
    ({"choices": "small"}, "an option's 'choices' is 'small', expected a tuple", ""),
    ({"former": 0.5}, "an option's 'former' is 0.5, expected a tuple such as (0.5,)", ""),
])
def test_attributes_of_an_option_are_checked(details, message, hint):
    with pytest.raises(PluginError) as caught:
        option(1, "one", **details)
    assert message in caught.value.message
    assert hint in caught.value.hint


class Colour(str, enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Chosen:
    depth: int = option(18, "d", choices=(18, 34))
    rate: float = option(0.1, "r", choices=(0.1, 1))
    colour: str = option(Colour.RED, "c", choices=Colour)
    colours: Tuple[str, ...] = option((Colour.RED,), "c")
    start: float = option(0.5, "s", names=("--t_0",))


@pytest.mark.parametrize(("given", "expected"), [
    ({"depth": "34"}, 34), ({"depth": 34}, 34), ({"rate": "1"}, 1.0), ({"rate": "1e-1"}, 0.1),
    ({"colour": "BLUE"}, "blue"), ({"colour": Colour.BLUE}, "blue"),
    ({"colours": [Colour.BLUE]}, ("blue",)),
])
def test_choices_may_be_numbers_and_members_of_an_enum(given, expected):
    (name,) = given
    found = getattr(build(Chosen, given), name)
    assert found == expected
    assert type(found) is type(expected)
    with pytest.raises(UsageError) as caught:
        build(Chosen, {"depth": 20})
    assert caught.value.hint == "values: 18, 34"


class Pace(enum.Enum):
    QUICK = "quick"


@dataclass(frozen=True)
class Translated:
    level: int = option(1, "l", choices={"small": 1, "large": 2})
    levels: Tuple[int, ...] = option((), "l", choices={"small": 1, "large": 2})
    pace: str = option(Pace.QUICK, "p", choices={"fast": Pace.QUICK, "slow": "snail"})
    speed: str = option("fast", "s", choices={"fast": "quick", "slow": "snail"})
    edge: Optional[str] = option(None, "e", choices={"none": None, "x": "x"})


@pytest.mark.parametrize(("given", "expected"), [
    ({"level": "Small"}, 1), ({"level": "2"}, 2), ({"levels": "large,1"}, (2, 1)),
    ({"pace": "slow"}, "snail"), ({"pace": "fast"}, "quick"), ({"pace": Pace.QUICK}, "quick"),
    ({"edge": "none"}, None), ({"edge": "x"}, "x"), ({"speed": "slow"}, "snail"), ({}, "quick"),
])
def test_what_a_choice_means_is_saved_and_read(given, expected):
    options = build(Translated, given)
    (name,) = given or ("speed",)
    assert getattr(options, name) == expected
    assert build(Translated, as_dict(options)) == options
    for item in declared(Translated):
        item.check_default()


@pytest.mark.parametrize("given", [
    {"level": value} for value in ("tiny", 3, 1.5, 10 ** 5000, True)])
def test_what_no_choice_means_is_refused(given):
    with pytest.raises(UsageError, match="is not one of its values") as caught:
        build(Translated, given)
    assert caught.value.hint.endswith("values: small, large")


def test_defaults_are_of_built_in_types():
    saved = as_dict(build(Chosen))
    assert saved == {"depth": 18, "rate": 0.1, "colour": "red", "colours": ["red"], "start": 0.5}
    assert type(saved["colour"]) is type(saved["colours"][0]) is str


def test_defaults_are_converted_as_the_same_values_are():
    @dataclass(frozen=True)
    class Defaults:
        mode: str = option("SLOW", "m", choices=("slow", "fast"))
        place: str = option("~/here", "p", metavar="DIR")
        places: Tuple[str, ...] = option(("~/here",), "p", metavar="DIR...")
        text: str = option("~/here", "t")

    home = os.path.expanduser("~")
    assert build(Defaults) == build(Defaults, {
        "mode": "SLOW", "place": "~/here", "places": "~/here", "text": "~/here"})
    assert as_dict(build(Defaults)) == {"mode": "slow", "place": f"{home}/here",
                                        "places": [f"{home}/here"], "text": "~/here"}


def test_underscores_in_names_are_hyphens():
    assert lookup(Chosen, "start").flags == ("--start", "--t-0")


@pytest.mark.skipif(sys.version_info < (3, 10), reason="the syntax is of Python 3.10")
def test_a_union_with_none_may_be_written_with_a_bar():
    options_class = make_dataclass("New", [("width", "int | None", option(None, "w"))],
                                   frozen=True)
    (item,) = declared(options_class)
    assert (item.type, item.nullable) == (int, True)


def test_declarations_are_read_once():
    assert declared(Options) is declared(Options)


@pytest.mark.parametrize(("given", "message"), [
    ({"items": "9" * 5000}, "is too large"), ({"items": 10 ** 5000}, "is too large"),
    ({"items": 10 ** 25}, "is too large"), ({"items": -10 ** 25}, "is too small"),
    ({"items": "1e25"}, "is too large"), ({"items": 2 ** 31}, "is too large"),
    ({"items": "1e400"}, "is not a whole number"), ({"items": float("nan")}, "is not a whole"),
    ({"space": "9" * 400 + "G"}, "is too large"), ({"space": "9" * 30 + "G"}, "is too large"),
    ({"rate": 10 ** 5000}, "is too large"), ({"rate": "1e400"}, "is not a finite number"),
    ({"name": 10 ** 5000}, "is too large"), ({"items": ["x" * 9999]}, "is not a whole number"),
])
def test_a_number_of_any_size_is_bounded_and_shown_short(given, message):
    @dataclass(frozen=True)
    class Open:
        items: int = option(4, "How many.")
        space: int = option(4, "How much.", size=True)
        rate: float = option(0.5, "How fast.")
        name: str = option("a", "Which.")

    with pytest.raises(UsageError) as caught:
        build(Open, given)
    assert message in caught.value.message
    assert len(str(caught.value)) < 250


def test_whole_numbers_beyond_the_precision_of_floats_stay_exact():
    @dataclass(frozen=True)
    class Exact:
        seed: int = option(0, "s", maximum=2 ** 63 - 1)
        space: int = option(4, "How much.", size=True)

    assert build(Exact, {"seed": str(2 ** 53 + 1)}).seed == 2 ** 53 + 1
    assert build(Exact, {"seed": 2 ** 63 - 1}).seed == 2 ** 63 - 1
    assert build(Exact, {"space": "9007199254740.993K"}).space == 9007199254740993

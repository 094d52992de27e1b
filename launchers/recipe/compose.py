"""Resolves a recipe name to a validated Recipe: `extends`, the scale's overlay, then overrides.

Later layers override earlier ones: files in `extends` in order, the recipe, `<family>/<scale>.yaml`,
`<family>/<recipe>.<scale>.yaml`, their `trainers.<selected trainer>` sections, then `--model`, `--data`, `--hardware`
and `--set` (`--set eval=<file>` merges another evaluation from a file of the family).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from data_prep.core.validation import schema_at
from launchers.envs import REPO
from launchers.errors import Fault, UserError, did_you_mean, fail, nearest
from launchers.recipe import positions as yaml_tree
from launchers.recipe.names import derived, is_native, our_name
from launchers.recipe.positions import Tree, dotted
from launchers.recipe.schema import SERVICES, TRAINERS, Control, Eval, Recipe

Model = TypeVar("Model", bound=BaseModel)
SCALES = ("mini",)
ROOT = REPO / "recipes"
# Key to the keys that depend on its value: a layer that changes the key also removes the dependent keys of the layers
# below. Options that set such a key are applied before the others.
_DEPENDENT_KEYS: dict[tuple[str, ...], tuple[tuple[str, ...], ...]] = {
    ("trainer",): (("native",),),
    ("model",): (("revision",), ("positions",), ("native", "template"), ("trainers", "*", "native", "template")),
    ("reward", "name"): (("reward", "params"), ("reward", "acc")),
    **{(name, "model"): ((name, "revision"), (name, "template")) for name in SERVICES},
}
_REPLACING = {dotted(path) for path in _DEPENDENT_KEYS}


@dataclass(frozen=True)
class Overrides:
    """Overrides from the command line, in order: (dotted key, text, option)."""

    scale: str | None = None
    settings: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Resolved:
    """A validated recipe, with the tree that records where each value was written."""

    name: str
    scale: str | None
    recipe: Recipe
    tree: Tree
    overrides: Overrides

    @property
    def family(self) -> str:
        """The folder under recipes/."""
        return self.name.split("/", maxsplit=1)[0]

    @property
    def folder(self) -> Path:
        """The family's folder, with its pipelines and sample rows."""
        return ROOT / self.family

    @property
    def begins_with(self) -> str | None:
        """The recipe whose trained model this one starts from; None without `model_of` or if --model was given."""
        given = any(key == "model" for key, _, _ in self.overrides.settings)
        return None if given else self.recipe.model_of

    @property
    def eval(self) -> Eval:
        """The evaluation of a recipe that has one."""
        assert self.recipe.eval is not None
        return self.recipe.eval

    def where(self, key: str) -> str:
        """file:line (or option) of a dotted key."""
        return self.tree.where_of(tuple(key.split(".")))

    def path(self, key: str) -> Path:
        """The path at a key: in a recipe relative to its folder, else to the repository; in an option to the working
        directory."""
        value = self.tree.at(tuple(key.split(".")))
        assert value is not None
        path = Path(str(value.value)).expanduser()
        if path.is_absolute():
            return path
        file = value.where.rsplit(":", 1)[0]
        relative = (REPO / file).parent / path if file.endswith((".yaml", ".yml")) else path.absolute()
        return relative if relative.exists() else REPO / path

    def fault(self, key: str, message: str) -> Fault:
        """A fault at a dotted key."""
        return Fault(self.where(key), key, message)


def recipe_names() -> list[str]:
    """All recipes, as <family>/<recipe>."""
    return [f"{path.parent.name}/{path.stem}" for path in sorted(ROOT.glob("*/*.yaml")) if _is_recipe(path)]


def _is_recipe(path: Path) -> bool:
    overlay = path.stem in SCALES or path.stem.rsplit(".", 1)[-1] in SCALES
    hidden = path.stem.startswith("_") or path.parent.name.startswith(("_", "."))
    return not (hidden or overlay or path.name in ("data.yaml", "study.yaml")) and path.is_file()


def models_at(commit: str) -> set[str]:
    """The Hub models that recipes pin to this commit."""
    models = set()
    for path in ROOT.glob("*/*.yaml"):
        if commit in path.read_text():
            tree = yaml_tree.load(path, shown(path))
            pins = [keys for keys, leaf in tree.leaves() if keys[-1] == "revision" and leaf.value == commit]
            models |= {model.value for keys in pins if (model := tree.at((*keys[:-1], "model")))}
    return models


def shown(path: Path) -> str:
    """A path for messages: relative to the repository if inside it."""
    path = Path(os.path.normpath(path))
    return str(path.relative_to(REPO)) if path.is_relative_to(REPO) else str(path)


def _load_layer(path: Path, chain: tuple[Path, ...] = ()) -> Tree:
    """A file merged over everything it extends."""
    path = path.resolve()
    if path in chain:
        circle = " -> ".join(shown(p) for p in (*chain[chain.index(path) :], path))
        raise fail(f"extends itself: {circle}", f"{shown(chain[-1])}", "extends")
    layer = _shorthand(yaml_tree.load(path, shown(path)))
    extends, below = layer.value.get("extends"), Tree({}, layer.where)
    if extends is None:
        return layer
    if not isinstance(extends.value, list) or not all(isinstance(item.value, str) for item in extends.value):
        raise fail("must be a list of files, e.g. [_base.yaml]", extends.where, "extends")
    for item in extends.value:
        base = path.parent / item.value
        if not base.is_file():
            near = nearest(base.name, [p.name for p in base.parent.glob("*.yaml")])
            hint = f"; did you mean {near!r}?" if near else ""
            raise fail(f"no such file: {item.value}{hint}", item.where, "extends")
        below = _merge_layer(below, _load_layer(base, (*chain, path)))
    return _merge_layer(below, layer)


def _merge_layer(below: Tree, above: Tree) -> Tree:
    """`above` merged over `below`; keys of `below` that depend on a value replaced by `above` are removed."""
    for path, dependent in _DEPENDENT_KEYS.items():
        old, new = below.at(path), above.at(path)
        if old and new and old.value is not None and new.value not in (None, old.value):
            for key in dependent:
                below = _pruned(below, key)
    return yaml_tree.merge(below, above)


def _shorthand(layer: Tree) -> Tree:
    """`eval: [a, b]` is `eval: {tasks: [a, b]}`."""
    given = layer.value.get("eval")
    if given is None or not isinstance(given.value, list):
        return layer
    return Tree({**layer.value, "eval": Tree({"tasks": given}, given.where)}, layer.where)


def _parse_value(text: str, where: str) -> Tree:
    """An override's text parsed as YAML (2e-5 is a number, [a, b] a list); other text stays a string."""
    try:
        parsed = yaml_tree.parse(text, where) if text else Tree("", where)
    except UserError:
        return Tree(text, where)
    plain = isinstance(parsed.value, str) and text.lstrip()[:1] not in "'\""  # taken verbatim: ` #` is no comment here
    if plain or (isinstance(parsed.value, dict) and not text.lstrip().startswith("{")):
        return Tree(text, where)
    return parsed.mapped(lambda node: Tree(node.value, where))


def _override(tree: Tree, key: str, value: Tree) -> Tree:
    for part in reversed(key.split(".")):
        value = Tree({part: value}, value.where)
    return _merge_layer(tree, _shorthand(value))


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name in model.model_fields:
        keys.append(prefix + name)
        if (inner := schema_at(model, (name,))) is not None:
            keys += _all_keys(inner, f"{prefix}{name}.")
    return keys


def _unknown_key(path: tuple[str | int, ...], trainer: str) -> str:
    key = str(path[-1])
    if why := derived(key):
        return f"cannot be set: {why}"
    level = schema_at(Recipe, path[:-1])
    if ours := our_name(dotted(path)):
        return f"another trainer's name; here it is {ours}"
    everywhere = [known for known in _all_keys(Recipe) if not dotted(path).startswith(f"{known}.")]
    if same := [known for known in everywhere if known.rsplit(".", 1)[-1] == key]:
        return f"unknown key here; did you mean {same[0]!r}?"
    if trainer in TRAINERS and is_native(trainer, key):
        return f"keys of {trainer} go under native: native.{key}"
    if level is not None and (near := nearest(key, level.model_fields)):
        return f"unknown key; did you mean {dotted((*path[:-1], near))!r}?"
    if near := nearest(dotted(path), everywhere):
        return f"unknown key; did you mean {near!r}?"
    return f"unknown key; {did_you_mean(key, level.model_fields)}" if level is not None else "unknown key"


_EXPECTED = {
    "string_type": "must be text", "int_type": "must be an integer", "int_from_float": "must be an integer",
    "float_type": "must be a number", "bool_type": "must be true or false",
    "list_type": "must be a list, e.g. [a, b]", "dict_type": "must be a mapping", "model_type": "must be a mapping",
}  # fmt: skip


def _message(error: Any) -> str:
    kind, given, ctx = error["type"], error["input"], error.get("ctx", {})
    if kind in _EXPECTED:
        return f"{_EXPECTED[kind]}, not {given!r}"
    if kind == "literal_error":
        options = [option.strip("'") for option in ctx["expected"].replace(" or ", ", ").split(", ")]
        near = nearest(str(given), options)
        return f"{given!r} is not one of {', '.join(options)}" + (f"; did you mean {near!r}?" if near else "")
    text = error["msg"].replace("Input should be", "must be")
    return f"{text[0].lower()}{text[1:]}, not {given!r}"


def _refusal(path: tuple[str | int, ...], model: type[BaseModel], tree: Tree) -> str:
    if model is not Recipe:
        level = schema_at(model, path[:-1])
        return f"unknown key; {did_you_mean(str(path[-1]), level.model_fields if level else ())}"
    if path[0] == "controls" and path[-1] in Recipe.model_fields:
        return f"a control cannot change this key, only {', '.join(Control.model_fields)}"
    trainer = tree.at(("trainer",))
    return _unknown_key(path, str(trainer and trainer.value))


def faults_of(error: ValidationError, tree: Tree, model: type[BaseModel]) -> list[Fault]:
    """pydantic's errors as faults with place, key and fix."""
    faults = []
    for item in error.errors(include_url=False):
        path = tuple(part for part in item["loc"] if part != "[key]")
        if item["type"] == "extra_forbidden":
            faults.append(Fault(tree.where_of(path), dotted(path), _refusal(path, model, tree)))
        elif item["type"] == "missing":
            faults.append(Fault(tree.where_of(path[:-1]), dotted(path), "missing: this key has no default"))
        else:
            faults.append(Fault(tree.where_of(path), dotted(path), _message(item)))
    return faults


def validated(tree: Tree, model: type[Model]) -> Model:
    """The tree as a model. Raises UserError with every fault found."""
    try:
        return model.model_validate(tree.plain())
    except ValidationError as error:
        raise UserError(*faults_of(error, tree, model)) from None


def validate(tree: Tree) -> Recipe:
    """The tree as a Recipe. Raises UserError with every fault found."""
    recipe = validated(tree, Recipe)
    for name in {"after", "before"} & set(recipe.controls):
        reason = "this name is reserved for the recipe's own evaluation: choose another"
        raise fail(reason, tree.where_of(("controls", name)), f"controls.{name}")
    train = recipe.train
    if (train.epochs is None) == (train.steps is None):
        both = "both are set: keep one (`--set train.epochs=null` removes an inherited one)"
        reason = both if train.epochs else "neither is set: set one"
        raise fail(reason, tree.where_of(("train", "steps")), "train.epochs, train.steps")
    if train.max_length is None and recipe.method in ("sft", "dpo"):
        raise fail("missing: tokens per sequence", tree.where_of(("train",)), "train.max_length")
    return recipe


def _without_unknown(tree: Tree) -> Tree:
    """The tree without unknown keys, so that other faults can be found too."""
    try:
        Recipe.model_validate(tree.plain())
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            if item["type"] == "extra_forbidden":
                tree = _pruned(tree, item["loc"])
    return tree


def _pruned(tree: Tree, path: tuple[str | int, ...]) -> Tree:
    """The tree without the value at `path`; `*` matches every key."""
    if not path or not isinstance(tree.value, dict):
        return tree
    head, *rest = path
    kept = {
        key: _pruned(child, tuple(rest)) if head in (key, "*") else child
        for key, child in tree.value.items()
        if rest or key != head
    }
    return Tree(kept, tree.where)


def _overlays(name: str, scale: str) -> list[Path]:
    family, recipe = name.split("/")
    layers = [ROOT / family / f"{scale}.yaml", ROOT / family / f"{recipe}.{scale}.yaml"]
    return [layer for layer in layers if layer.is_file()]


def scales_of(name: str) -> list[str]:
    """The scales that a recipe has overlays for."""
    return [scale for scale in SCALES if _overlays(name, scale)]


def _layers(name: str, scale: str | None) -> list[Path]:
    """A recipe's file and the scale's overlays. Raises UserError."""
    file = ROOT / f"{name}.yaml"
    if f"{file.parent.name}/{file.stem}" != name or not _is_recipe(file):
        raise fail(f"no such recipe; {did_you_mean(name, recipe_names())} (`make list` shows them all)", key=name)
    if scale and scale not in SCALES:
        raise fail(f"no such scale: {scale!r}; {did_you_mean(scale, SCALES)}", "SCALE")
    overlays = _overlays(name, scale) if scale else []
    if scale and not overlays:
        raise fail(f"family {name.split('/', maxsplit=1)[0]!r} has no {scale}.yaml", "SCALE")
    return [file, *overlays]


def resolve(name: str, overrides: Overrides | None = None, lenient: bool = False) -> Resolved:
    """The recipe `name`, resolved and validated; `lenient` ignores unknown keys. Raises UserError."""
    overrides = overrides or Overrides()
    if "extends" in [key.split(".")[0] for key, _, _ in overrides.settings]:
        raise fail(
            "cannot be overridden on the command line: write a recipe that extends other files", "--set", "extends"
        )
    tree = reduce(_merge_layer, map(_load_layer, _layers(name, overrides.scale)))
    for key, text, option in overrides.settings:
        if key == "trainer":
            tree = _override(tree, key, Tree(text, option))
    tree = _for_trainer(tree)
    settings = sorted(overrides.settings, key=lambda setting: setting[0] not in _REPLACING)
    for key, text, option in (setting for setting in settings if setting[0] != "trainer"):
        if key == "eval" and text.endswith(".yaml"):
            tree = _merge_layer(tree, _load_layer(_evaluation_file(name, text, option)))
            continue
        value = Tree(text, option) if not option.startswith(("--set", "SET=")) else _parse_value(text, option)
        tree = _override(tree, key, value)
    tree = without_nulls(_without_stale_controls(tree, overrides), ("controls", "expect", "reference"))
    if lenient:
        tree = _without_unknown(tree)
    return Resolved(name, overrides.scale, validate(tree), tree, overrides)


def _evaluation_file(name: str, file: str, option: str) -> Path:
    """The path of one of the family's files with another `eval` section. Raises UserError."""
    family = ROOT / name.split("/")[0]
    if not (family / file).is_file():
        names = sorted(path.name for path in family.glob("_eval*.yaml"))
        raise fail(f"no such file in {shown(family)}: {file}; {did_you_mean(file, names)}", option, "eval")
    return family / file


def _for_trainer(tree: Tree) -> Tree:
    """The tree with the selected trainer's section of `trainers` merged in."""
    selected = tree.at(("trainer",))
    variant = selected and tree.at(("trainers", selected.value))
    return yaml_tree.merge(tree, variant) if variant and isinstance(variant.value, dict) else tree


def _without_stale_controls(tree: Tree, overrides: Overrides) -> Tree:
    """With --data, controls that change the data are removed: they are not comparable."""
    given = any(key == "data" for key, _, _ in overrides.settings)
    for name in _keys(tree, "controls") if given else ():
        if tree.at(("controls", name, "data")):
            tree = _pruned(tree, ("controls", name))
    return tree


def without_nulls(tree: Tree, keys: Sequence[str]) -> Tree:
    """null removes an inherited entry of these free-form mappings, or the mapping itself."""
    for key in keys:
        for path in ((key,), *((key, name) for name in _keys(tree, key))):
            if (node := tree.at(path)) and node.value is None:
                tree = _pruned(tree, path)
    return tree


def _keys(tree: Tree, key: str) -> list[str]:
    """The keys of the mapping at `key`; [] if there is none."""
    inner = tree.at((key,))
    return list(inner.value) if inner and isinstance(inner.value, dict) else []


def patched(resolved: Resolved, control: str) -> Resolved:
    """The recipe of control run `control`, without controls."""
    patch = resolved.tree.value["controls"].value[control]
    tree = _merge_layer(resolved.tree, patch)
    tree = Tree({**tree.value, "controls": Tree({}, patch.where)}, tree.where)
    try:
        recipe = validate(tree)
    except UserError as error:
        named = [Fault(f.where, f"controls.{control}.{f.key}", f.message) for f in error.faults]
        raise UserError(*named) from None
    return replace(resolved, recipe=recipe, tree=tree)


def parse_settings(pairs: Sequence[str], option: str = "--set") -> list[tuple[str, str, str]]:
    """`key=value` texts as override settings. Raises UserError."""
    settings = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            example = "e.g. train.learning_rate=2e-5 (quote values with spaces)"
            raise fail(f"{pair!r} is not key=value, {example}", option)
        settings.append((key.strip(), value, f"{option} {key.strip()}"))
    return settings

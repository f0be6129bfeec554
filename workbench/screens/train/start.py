"""The dialog that starts training: a list of recipes, and then the few fields of the chosen one."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from storage.feedback.stock import Stock
from workbench.training.recipes import RECIPES, Recipe, measured
from workbench.widgets.dialogs import Dialog, Field, FormDialog
from workbench.widgets.trainer_sheet import TrainerSheet

Chosen = tuple[Recipe, dict[str, Any]]
SHOWN = 20  # examples


class RecipeDialog(Dialog[Chosen]):
    """The recipes, each with what it needs; arrows and Enter or a letter choose one, and its fields come next."""

    CSS_PATH = "style.tcss"
    AUTO_FOCUS = "OptionList"
    CAN: ClassVar = frozenset({"accept", "examples"})
    BINDINGS: ClassVar = [("j", "move(1)", "down"), ("k", "move(-1)", "up")]

    def __init__(self, stock: Stock) -> None:
        super().__init__("Start training")
        self.stock = stock

    def fields(self) -> ComposeResult:
        yield OptionList(*(Option(row(recipe, self.stock)) for recipe in RECIPES), markup=False, id="recipes")
        yield Static(id="purpose", markup=False)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        self.query_one("#purpose", Static).update(purpose(RECIPES[event.option_index], self.stock))
        self.refresh_bindings()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.choose(RECIPES[event.option_index])

    def on_key(self, event: events.Key) -> None:
        found = next((n for n, recipe in enumerate(RECIPES) if recipe.key == event.key), None)
        if found is not None:
            event.stop()
            self.query_one(OptionList).highlighted = found
            self.choose(RECIPES[found])

    def action_move(self, step: int) -> None:
        listed = self.query_one(OptionList)
        listed.highlighted = ((listed.highlighted or 0) + step) % len(RECIPES)

    def action_accept(self) -> None:
        self.choose(self.in_focus)

    @property
    def in_focus(self) -> Recipe:
        """The recipe in focus; before there is a list, its first."""
        listed = self.query(OptionList)
        return RECIPES[(listed.first().highlighted or 0) if listed else 0]

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only what learns has something to learn from."""
        return self.in_focus.method.learns if action == "examples" else super().check_action(action, parameters)

    def action_examples(self) -> None:
        """Show what the recipe in focus would learn from, as it is set by itself."""
        self.app.push_screen(examples(self.in_focus, {}, self.workbench.session.model))

    def choose(self, recipe: Recipe) -> None:
        """Ask for the recipe's fields, unless the workspace lacks something; Escape in the form comes back here."""
        need = recipe.need(self.stock)
        if not need.met:
            self.app.bell()  # what is missing stands below the list
            return

        def filled(values: dict[str, Any] | None) -> None:
            if values is not None:
                self.dismiss((recipe, values))

        supply = [need.words, measured(self.stock)] if recipe.method.learns else [need.words]
        self.app.push_screen(RecipeForm(recipe, "; ".join(supply)), filled)


def row(recipe: Recipe, stock: Stock) -> Content:
    """`p  PPO  ✓ needs a reward model, has rm2`."""
    need = recipe.need(stock)
    sign, style = ("✓", "$text-success") if need.met else ("✕", "$text-error")
    return Content.assemble(
        (f"{recipe.key} ", "bold $accent"), (f"{recipe.name:<16}", "bold"), (f"{sign} ", style),
        (need.words, "$text-muted"),
    )  # fmt: skip


def purpose(recipe: Recipe, stock: Stock) -> Content:
    """What a recipe is for, and before that, where something is missing, what to do."""
    need = recipe.need(stock)
    lack = [] if need.met else [Content.styled(f"✕ {need.words}: {need.remedy}", "$text-error")]
    return Content("\n").join([*lack, Content(recipe.purpose)])


class RecipeForm(FormDialog):
    """The fields of a recipe, filled with what the trainer would take anyway; what it learns from is a key away."""

    def __init__(self, recipe: Recipe, supply: str) -> None:
        self.recipe = recipe
        fields = [
            Field(one.path, one.label, one.default, one.parse, one.hint, choices=one.choices) for one in recipe.settings
        ]
        text = f"{recipe.purpose} ({supply})"
        title = f"Start training: {recipe.name}" if recipe.method.learns else f"Start: {recipe.name}"
        super().__init__(title, fields, text=text, wrong=recipe.wrong)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only what learns has something to learn from."""
        return self.recipe.method.learns if action == "examples" else super().check_action(action, parameters)

    def action_examples(self) -> None:
        if (values := self.values()) is not None:
            self.app.push_screen(examples(self.recipe, values, self.workbench.session.model))


def examples(recipe: Recipe, values: dict[str, Any], model: str) -> TrainerSheet:
    """What a recipe with these settings would learn from."""
    command = [recipe.stage, "--show", str(SHOWN)]
    return TrainerSheet(f"{recipe.name}: what would be learned from", command, recipe.config(values, model))

"""GALD's ablations on ResNet-50 (Li et al., IEEE TIP 2021): its Tables I and II, and what repeats them."""

from __future__ import annotations

from nonlocalseg.recipes.gald import CITYSCAPES, HALF, SINGLE, recipe_of
from nonlocalseg.recipes.schema import Published, Recipe

QUERY = 'The table\'s ticks are lost in the text at hand: this is how "Key" and "Query" read beside the baseline.'


def ablations() -> tuple[Recipe, ...]:
    """Every row of both tables."""
    return (
        *aggregations(),
        *distributions(),
        *arrangements(),
        *mask_downsampling(),
        *neighbourhoods(),
        *queries(),
    )


def _ablation(model: str, variant: str, value: float, *tables: str, **options: object) -> Recipe:
    """A row of the ablations: ResNet-50, 50k steps, one scale in windows."""
    rows = (Published(f"GALD Table {table}", "mIoU", value, SINGLE) for table in tables)
    return recipe_of(model, 50, variant, (CITYSCAPES,), *rows, **options)


def aggregations() -> tuple[Recipe, ...]:
    """Table I (a): the baseline, and global aggregation alone."""
    return (
        _ablation("fcn", "", 73.7, "I (a)", "I (b)", "I (c)", "I (d)", "II (a)", "II (b)", "IV"),
        _ablation("aspp", "", 77.2, "I (a)", "II (b)", "IV", **HALF),
        _ablation("gald", "-nonlocal", 78.0, "I (a)", aggregate="nonlocal", distribute="none"),
        _ablation("psp", "", 76.2, "I (a)", **HALF),
        _ablation("cgnl", "", 78.2, "I (a)", "II (a)"),
    )


def distributions() -> tuple[Recipe, ...]:
    """Tables I (b) and (d): LDv1 and LDv2 behind nothing and behind each aggregation."""
    rows = (  # aggregate, distribute, mIoU, tables
        ("none", "ldv1", 77.5, ("I (b)",)),
        ("psp", "ldv1", 78.9, ("I (b)",)),
        ("aspp", "ldv1", 79.5, ("I (b)", "IV")),
        ("nonlocal", "ldv1", 79.2, ("I (b)",)),
        ("psp", "ldv2", 80.2, ("I (d)",)),
        ("nonlocal", "ldv2", 79.9, ("I (d)",)),
        ("cgnl", "ldv2", 80.1, ("I (d)",)),
    )
    return (
        *(
            _ablation(
                "gald",
                f"-{distribute}" if aggregate == "none" else f"-{aggregate}-{distribute}",
                value,
                *tables,
                aggregate=aggregate,
                distribute=distribute,
            )
            for aggregate, distribute, value, tables in rows
        ),
        _ablation("galdv1", "", 79.6, "I (b)", "I (c)", "II (a)"),
        _ablation("galdv2", "", 80.8, "I (d)", "II (b)", "II (c)", "III", "IV"),
    )


def arrangements() -> tuple[Recipe, ...]:
    """Table I (c): CGNL and LDv1 side by side, and in the other order."""
    return tuple(
        _ablation("galdv1", f"-{arrangement}", value, "I (c)", arrangement=arrangement)
        for arrangement, value in (("parallel", 77.5), ("ldga", 78.1))
    )


def mask_downsampling() -> tuple[Recipe, ...]:
    """Table II (a): how LDv1's mask is made smaller; the depthwise convolutions are `galdv1` itself."""
    return tuple(
        _ablation("galdv1", f"-{kind}", value, "II (a)", mask_downsample=kind)
        for kind, value in (("bilinear", 77.6), ("average", 76.5))
    )


def neighbourhoods() -> tuple[Recipe, ...]:
    """Table II (b): kernel k and dilation r of LDv2, alone and behind ASPP (k = 5, r = 6 is `galdv2` itself).

    Table I (d) lists LDv2 alone with the figure of k = 7, r = 6.
    """
    alone = ((3, 3, 76.2), (5, 3, 77.2), (5, 6, 77.5), (7, 6, 78.9))
    behind = ((3, 3, 79.9), (3, 6, 79.8), (5, 3, 80.2), (7, 6, 80.3))
    return tuple(
        _ablation(
            model,
            f"{variant}-k{k}r{r}",
            value,
            "II (b)",
            *(["I (d)"] if value == 78.9 else []),
            distribute_kernel_size=k,
            distribute_dilation=r,
            **options,
        )
        for model, variant, options, rows in (
            ("gald", "-ldv2", {"aggregate": "none", "distribute": "ldv2"}, alone),
            ("galdv2", "", {}, behind),
        )
        for k, r, value in rows
    )


def queries() -> tuple[Recipe, ...]:
    """Table II (c): LDv2 whose key, or whose query, sees the aggregated features alone and not X_l beside them."""
    recipes = (
        _ablation("galdv2", "-global-key", 80.1, "II (c)", distribute_key="global"),
        _ablation("galdv2", "-global-query", 79.8, "II (c)", distribute_query="global"),
    )
    return tuple(recipe.noting(QUERY) for recipe in recipes)

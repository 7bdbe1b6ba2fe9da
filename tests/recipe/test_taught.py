"""What distillation is composed with: SGD's steps are as long at any temperature."""

import pytest

from stopgrad.methods.distill import DistillConfig
from stopgrad.nn.config import BackboneConfig
from stopgrad.recipes import recipe_named
from stopgrad.recipes.taught import Taken, distilled


@pytest.mark.parametrize(
    ("temperature", "scaled", "rate"), [(1.0, False, 0.96), (0.1, False, 0.096), (0.1, True, 9.6), (2.0, False, 1.92)]
)
def test_the_rate_goes_with_how_steep_a_softmax_is(temperature: float, scaled: bool, rate: float) -> None:
    method = DistillConfig(teacher="/runs/teacher", classes=10, temperature=temperature, scaled=scaled)
    recipe, why = distilled(recipe_named("simsiam"), BackboneConfig(), method, Taken(images=1000, share=1.0))
    assert recipe.optim.base_lr == pytest.approx(rate)
    assert ("optim.base_lr" in why) == (temperature != 1)

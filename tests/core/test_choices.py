import pickle

import click
import pytest
from pydantic import BaseModel, Field, ValidationError

from bayes_panns.core import choices
from bayes_panns.core.choices import Choice, EstimatorKind, Task

ALL = [
    each
    for each in vars(choices).values()
    if isinstance(each, type) and issubclass(each, Choice) and each is not Choice
]


@pytest.mark.parametrize("choice", ALL)
def test_every_member_has_a_word_and_a_summary(choice):
    assert choice.__doc__
    for member in choice:
        assert member == member.value == str(member)
        assert member.value == member.name.lower().replace("_", "-")
        assert member.summary
        assert choice(member.value) is member
    summaries = [member.summary for member in choice]
    assert len(set(summaries)) == len(summaries)


@pytest.mark.parametrize("choice", ALL)
def test_words_and_descriptions_list_them_in_order(choice):
    assert choice.words() == tuple(member.value for member in choice)
    for member in choice:
        assert f"{member} ({member.summary})" in choice.described()


def test_a_choice_survives_pickle_and_equals_its_word():
    kind = pickle.loads(pickle.dumps(EstimatorKind.FLIPOUT))
    assert kind is EstimatorKind.FLIPOUT
    assert kind == "flipout"
    assert f"{kind}" == "flipout"
    assert {"flipout": 1}[kind] == 1


def test_an_unknown_word_is_an_error():
    with pytest.raises(ValueError, match="'one-of-n' is not a valid Task"):
        Task("one-of-n")


def test_recipes_and_commands_take_their_words_from_it():
    class Recipe(BaseModel, strict=True):
        task: Task = Field(Task.ONE_OF_K, strict=False)

    assert Recipe.model_validate({"task": "multi-label"}).task is Task.MULTI_LABEL
    assert Recipe().model_dump(mode="json") == {"task": "one-of-k"}
    with pytest.raises(ValidationError, match="'one-of-k', 'multi-label' or 'unlabelled'"):
        Recipe.model_validate({"task": "both"})
    assert click.Choice(Task.words()).convert("multi-label", None, None) == Task.MULTI_LABEL

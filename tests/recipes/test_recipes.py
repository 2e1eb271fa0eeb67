import pytest

from bayes_panns.core.errors import RecipeError
from bayes_panns.recipes import names, read_run, read_strategy


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('net = "resnet22"\n[data]\nfolds = [1, 2]\n[fit]\nepochs = 3\nlearning_rate = 1e-4\n')
    return path


def test_every_recipe_that_comes_along_is_valid_and_described():
    for name in names("runs"):
        run = read_run(name)
        assert run.description
        read_strategy(run.guide)
    for name in names("guides"):
        assert read_strategy(name).description
    assert {"flip", "det-flip", "drop", "det"} <= set(names("guides"))


def test_a_file_is_read_with_defaults_for_the_rest(recipe):
    run = read_run(recipe)
    assert (run.net, run.data.folds, run.fit.epochs, run.fit.learning_rate) == ("resnet22", [1, 2], 3, 1e-4)
    assert (run.guide, run.fit.batch_size, run.fit.kl_weight) == ("flip", 32, 1.0)


def test_set_replaces_any_value(recipe):
    run = read_run(
        recipe, ["fit.epochs=7", "net=resnet54", "data.folds=[4]", 'data.stores=["a b.h5"]', "fit.mixup=true"]
    )
    assert (run.fit.epochs, run.net, run.data.folds, run.data.stores) == (7, "resnet54", [4], ["a b.h5"])
    assert run.fit.mixup is True
    assert run.fit.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("fit.epoch=3", "unknown key fit.epoch; did you mean epochs?"),
        ("fit.xyz=3", "unknown key fit.xyz; known: epochs, "),
        ("colour=3", "unknown key colour; known: description, net, "),
        ("fit.epochs=many", "fit.epochs = 'many': input should be a valid integer"),
        ("fit.epochs=0", "fit.epochs = 0: input should be greater than or equal to 1"),
        ("fit.epochs=2.5", "fit.epochs = 2.5: input should be a valid integer"),
        ("data.validation=1.5", "data.validation = 1.5: input should be less than 1"),
        ('fit.features="embeddings"', "embeddings are computed once and not augmented; set fit.spec_augment = false"),
        ("fit.views=4", 'views = 4: views are of embeddings; set fit.features = "embeddings"'),
        ('fit.schedule="step"', "fit.schedule = 'step': input should be 'constant' or 'cosine'"),
        ("epochs", "write it as key=value"),
        ("net.width=3", "net is a value, not a table"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(recipe, change, message):
    with pytest.raises(RecipeError) as error:
        read_run(recipe, [change])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_not_toml_or_not_there_is_told(tmp_path):
    (tmp_path / "bad.toml").write_text("[fit\nepochs = 3")
    with pytest.raises(RecipeError, match=r"bad.toml: not valid TOML: .*line 1"):
        read_run(tmp_path / "bad.toml")
    with pytest.raises(RecipeError, match=r"no recipe of that name in guides/ .*det-flip"):
        read_strategy("flop")


def test_a_wrong_rule_names_its_place(tmp_path):
    path = tmp_path / "guide.toml"
    path.write_text('[[rule]]\nmatch = "fc1.*"\npostrior = "point"\n')
    with pytest.raises(RecipeError, match=r"guide.toml: unknown key rule.0.postrior; did you mean posterior\?"):
        read_strategy(path)

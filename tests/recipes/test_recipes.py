import pytest

from bayes_panns.core.choices import HeadStart, Task
from bayes_panns.core.errors import RecipeError, SettingError
from bayes_panns.recipes import Run, names, read_run, read_strategy, replaced


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('net = "resnet22"\n[data]\nfolds = [1, 2]\n[fit]\nepochs = 3\nlearning_rate = 1e-4\n')
    return path


def test_every_recipe_that_comes_with_the_package_is_valid_and_described():
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


def test_choices_are_members_of_their_enums_and_written_as_words(recipe):
    run = read_run(recipe, ["head=probe", "data.task=multi-label"])
    assert (run.head, run.data.task) == (HeadStart.PROBE, Task.MULTI_LABEL)
    assert run.model_dump(mode="json")["data"]["task"] == "multi-label"
    assert Run.model_validate(run.model_dump()) == run


def test_values_given_in_a_call_replace_the_recipes(recipe):
    given = {"stores": ["a.h5"], "labels": "l.csv", "guide": "det", "upstream": "up", "seed": 5}
    run = read_run(recipe, ["fit.seed=3", "guide=flip"], **given)
    assert (run.data.stores, run.data.labels, run.guide, run.upstream) == (["a.h5"], "l.csv", "det", "up")
    assert run.fit.seed == 5
    assert run.data.folds == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("fit.epoch=3", "unknown key fit.epoch; did you mean epochs?"),
        ("fit.xyz=3", "unknown key fit.xyz; known keys: optimizer, "),
        ("colour=3", "unknown key colour; known keys: description, net, "),
        ("fit.epochs=many", "fit.epochs = 'many': input should be a valid integer"),
        ("fit.epochs=0", "fit.epochs = 0: input should be greater than or equal to 1"),
        ("fit.epochs=2.5", "fit.epochs = 2.5: input should be a valid integer"),
        ("data.validation=1.5", "data.validation = 1.5: input should be less than 1"),
        ("data.validation=nan", "data.validation = nan: input should be a finite number"),
        ("data.share=0", "data.share = 0: input should be greater than 0"),
        ("data.task=unlabelled", "a fit needs labels: write 'one-of-k' or 'multi-label'"),
        ("data.folds=[1, 1]", "name one fold or more, each once"),
        ("data.folds=[]", "name one fold or more, each once"),
        ("head=zero", "head = 'zero': input should be 'random', 'probe' or 'upstream'"),
        ('fit.features="embeddings"', "embeddings are computed once and not augmented; set fit.spec_augment = false"),
        ("fit.views=4", 'views = 4: views are of embeddings; set fit.features = "embeddings"'),
        ('fit.schedule="step"', "fit.schedule = 'step': input should be 'constant' or 'cosine'"),
        ("epochs", "write it as key=value"),
        ("net.width=3", "net is a value, not a table"),
        ("guide=mine:make", "a guide in Python is code; name it with --guide mine:make"),
    ],
)
def test_an_invalid_setting_is_reported_in_one_line_with_its_option(recipe, change, message):
    with pytest.raises(SettingError) as error:
        read_run(recipe, [change])
    assert str(error.value).startswith(f"--set {change}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_invalid_seed_names_its_option(recipe):
    with pytest.raises(SettingError, match=r"--seed -1: fit.seed = -1: input should be greater than or equal to 0"):
        # It replaces what --set gives.
        read_run(recipe, ["fit.seed=3"], seed=-1)


def test_a_mistake_in_the_file_is_the_files(recipe):
    recipe.write_text(recipe.read_text() + "seed = -2\n")
    with pytest.raises(RecipeError, match=r"mine.toml: fit.seed = -2: "):
        read_run(recipe, ["fit.epochs=2"])
    # A value that replaces the mistake is in force; one that is wrong itself is reported first.
    assert read_run(recipe, seed=4).fit.seed == 4
    with pytest.raises(SettingError, match=r"--set fit.epochs=0: .* \(and 1 more\)"):
        read_run(recipe, ["fit.epochs=0"])


def test_replaced_values_are_validated():
    run = replaced(Run(), {"data.folds": [3], "fit.seed": 2})
    assert (run.data.folds, run.fit.seed, run.guide) == ([3], 2, "flip")
    with pytest.raises(SettingError, match=r"fit.seed = -1"):
        replaced(run, {"fit.seed": -1})


def test_what_is_not_toml_or_not_there_is_reported(tmp_path):
    (tmp_path / "bad.toml").write_text("[fit\nepochs = 3")
    with pytest.raises(RecipeError, match=r"bad.toml: is not valid TOML: .*line 1"):
        read_run(tmp_path / "bad.toml")
    with pytest.raises(RecipeError, match=r"no recipe of that name in guides/ .*det-flip"):
        read_strategy("flop")


def test_a_wrong_rule_names_its_place(tmp_path):
    path = tmp_path / "guide.toml"
    path.write_text('[[rule]]\nmatch = "fc1.*"\npostrior = "point"\n')
    with pytest.raises(RecipeError, match=r"guide.toml: unknown key rule.0.postrior; did you mean posterior\?"):
        read_strategy(path)

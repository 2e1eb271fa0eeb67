import pytest
import torch

from bayes_panns.core.errors import RecipeError
from bayes_panns.nets import EmbeddingNet, backbone, build
from bayes_panns.nets.embeddings import NoFrontEnd


def test_a_network_is_built_by_the_width_in_its_name():
    net = build("embeddings-512", 3)
    assert isinstance(net, EmbeddingNet)
    assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == {
        "fc.weight": (3, 512),
        "fc.bias": (3,),
    }
    assert backbone(net, net.head) == ()


@pytest.mark.parametrize(
    "name",
    ["embeddings", "embeddings-", "embeddings-0", "embeddings-012", "embeddings--3", "embeddings-٣", "other-512"],
)
def test_other_names_are_no_networks(name):
    with pytest.raises(RecipeError, match=r"no such network; there are .*, embeddings-N"):
        build(name, 3)


def test_a_posterior_of_a_stranger_cannot_ask_for_any_width():
    with pytest.raises(RecipeError, match="from 1 to 1048576 numbers"):
        build("embeddings-1048577", 3)


def test_nothing_happens_to_an_embedding_before_the_last_layer():
    net, vectors = build("embeddings-8", 3), torch.randn(5, 8)
    front_end = net.front_end(0)
    assert front_end(vectors) is vectors
    assert net.embed(vectors) is vectors
    torch.testing.assert_close(net(vectors), vectors @ net.fc.weight.T + net.fc.bias)
    assert front_end.shape(8) == (1, 8)
    assert front_end.signature != NoFrontEnd(9).signature


def test_sound_other_widths_and_augmentation_are_refused():
    net = build("embeddings-8", 3)
    with pytest.raises(RecipeError, match="takes embeddings of 8 numbers, not sound at 32000 Hz"):
        net.front_end(32000)
    with pytest.raises(ValueError, match="embeddings of 9 numbers, but the network takes 8"):
        net.front_end(0)(torch.zeros(2, 9))
    with pytest.raises(ValueError, match="cannot be augmented"):
        net.embed(torch.zeros(2, 8), augment=torch.relu)

"""The four-block network."""

import pytest
import torch

from mdprop_ext.nn.backbones import conv4


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (33, 47)])
def test_unit_embeddings_for_every_image_size(size):
    embeddings = conv4(in_channels=3, width=8, embedding_dim=5)(torch.rand(4, 3, *size))
    assert embeddings.shape == (4, 5)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4))


def test_without_normalisation():
    torch.manual_seed(0)
    assert not torch.allclose(conv4(normalize=False)(torch.rand(4, 1, 28, 28)).norm(dim=1), torch.ones(4), atol=0.01)


def test_default_size():
    model = conv4()
    assert sum(parameter.numel() for parameter in model.parameters()) == 9 * 64 * (1 + 3 * 64) + 4 * 128 + 65 * 64


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="at least 16 pixels"):
        conv4()(torch.rand(2, 1, 28, 15))

"""Preprocessing in a record that the weights contradict."""

from pathlib import Path

import ipucnn

WEIGHTS = Path(__file__).with_name("planted.pt")


def build(num_classes):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=2)
            self.head = nn.Linear(4, num_classes)

        def forward(self, images):
            logits = self.head(self.conv(images).relu().mean((2, 3)))
            return logits

    return Net()


@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec(
        name="planted", summary="planted", target=build, num_classes=7,
        preprocessing=ipucnn.Preprocessing(input_size=32, mean=(0.5, 0.5, 0.5)),
        weights=(ipucnn.PublishedWeights("v1", WEIGHTS.as_uri(), "", "MIT", "example"),))]

"""A model that returns softmax outputs."""

import ipucnn


def build(num_classes):
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=2)
            self.head = nn.Linear(4, num_classes)

        def forward(self, images):
            logits = self.head(self.conv(images).relu().mean((2, 3)))
            return torch.softmax(logits, 1)

    return Net()


@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec(name="planted", summary="planted", input_size=32, target=build)]

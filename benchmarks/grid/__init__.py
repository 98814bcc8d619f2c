"""The paper's grid of backbones and scales against torchvision."""

"""The parts of the Mask R-CNN that `model.py` puts together, and their weights.

- ``backbones``: torchvision's and timm's, with the feature pyramid
- ``heads``: RoI heads
- ``rpn``: the region proposal network
- ``pyramid``: pooling from the feature pyramid
- ``cpu_kernels``: faster ways to the same results on a CPU
- ``sampling``: which anchors and proposals a step learns from
- ``targets``: mask targets sampled from label maps
- ``norms``: normalisation that keeps half precision
- ``weights``: where the first weights come from
- ``foreign_weights``: names and containers of weights that other programs saved
- ``tensor_files``: files of tensors, checked before they are used
"""

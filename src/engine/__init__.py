"""Training and prediction: the only package of src that imports torch.

- ``run``: what a training run is made of, and what it must have in common with the checkpoint that it resumes
- ``state``: model, optimizer and progress, into a checkpoint and back
- ``augmentation``: random changes of a training tile and its label map
- ``loading``: tiles become batches
- ``preview``: pictures of training tiles
- ``heads``: RoI heads
- ``rpn``: the region proposal network
- ``pyramid``: pooling from the feature pyramid
- ``sampling``: which anchors and proposals a step learns from
- ``targets``: mask targets sampled from label maps
- ``norms``: normalisation that keeps half precision
- ``optimization``: optimizer, learning rate, averaged weights
- ``validation``: the val images of a run, predicted and scored
- ``prediction``: the network on the tiles of images
- ``weights``: where the first weights come from
- ``foreign_weights``: names and containers of weights that other programs saved
- ``checkpoint``: what a file holds of a training, and its reader and writer
- ``tensor_files``: files of tensors, checked before they are used
- ``run_folder``: one training at a time in a folder, and what it resumes from
- ``run_log``: the log of a run, and losses on their way from the device
- ``devices``: device and precision
- ``memory``: batch size by memory, and memory that runs out
- ``distributed``: several processes under torchrun
- ``launch``: as many processes as GPUs
- ``interrupt``: signals
"""

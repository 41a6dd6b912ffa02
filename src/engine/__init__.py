"""Training and prediction.

- ``run``: what a training run is made of, and what it must have in common with the checkpoint that it resumes
- ``state``: model, optimizer and progress, into a checkpoint and back
- ``augmentation``: random changes of a training tile and its label map
- ``loading``: tiles become batches
- ``preview``: pictures of training tiles
- ``optimization``: optimizer, learning rate, averaged weights
- ``validation``: the val images of a run, predicted and scored
- ``prediction``: the network on the tiles of images
- ``slide_prediction``: the network on the tiles of a slide, in bounded memory
- ``slide_options``: how slides are predicted, and checks before the first one
- ``slide_run``: a folder of slides becomes folders of cells
- ``checkpoint``: what a file holds of a training, and its reader and writer
- ``run_folder``: one training at a time in a folder, and what it resumes from
- ``run_log``: the log of a run, and losses on their way from the device
- ``devices``: device and precision
- ``memory``: batch size by memory, and memory that runs out
- ``distributed``: several processes under torchrun
- ``launch``: as many processes as GPUs
- ``interrupt``: signals
"""

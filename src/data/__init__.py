"""Reading of images, masks, classes and splits.

- ``tiff``: decoding and writing TIFF
- ``tiff_streams``: sizes that compressed streams claim
- ``images_to_predict``: finds images to predict, and their ids
- ``records``: images with their masks
- ``orientation``: what is said about files with a tag of orientation
- ``names``: names of images that differ in ending, case or Unicode form
- ``id_map``: which id each test image has
- ``classes``: the cell classes
- ``stain``: what the stain's colours tell
- ``splits``: train and val without near duplicates
- ``prepared``: an image, decoded and scaled, with its label map
- ``scaling``: masks of another size
- ``pictures``: PNG, JPEG, BMP and WebP
- ``webp``: what a WebP file says of itself
- ``folders``: the image folders of a data folder, at any depth
- ``masks``: the cells of a mask, TIFF or PNG
- ``intensity``: how values of any type become 8 bits
- ``image_facts``: facts about prepared images, small enough to keep for all
- ``cache``: prepared images on disk
- ``open_images``: prepared images, few of which are open at a time
- ``data_shift``: whether images to predict are like those of the training
- ``training_data``: what a training run works on
"""

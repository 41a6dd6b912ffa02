"""Pure functions of arrays: tiles, objects, and how tiles become an image again.

- ``instances``: an object as a cropped mask, and label maps
- ``tiles``: where the tiles of an image lie
- ``tile_lists``: the tiles of many images, and which of them hold boxes
- ``detections``: the network's small masks become objects
- ``views``: flips and turns for test-time augmentation
- ``stitch``: the objects of all tiles become those of the image, all at once or while tiles come
- ``stitch_settings``: when detections are the same object, and which objects stay
- ``tile_detections``: detections of many tiles, and which of them another tile sees better
- ``linking``: which detections of different tiles are the same object
- ``suppression``: which of overlapping objects stay
- ``chains``: how far a chain of objects may reach
- ``overlaps``: which objects overlap, and where they are larger than an overlap
- ``polygons``: masks from polygons
- ``stacks``: the masks of many objects in one array
- ``outlines``: polygons from masks
- ``shapes``: area, axes, perimeter and other measures
- ``anchors``: anchor boxes that suit the cells
"""

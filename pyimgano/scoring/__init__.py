"""Scores more pictures than one start or one machine can: `pyimgano score`.

    arguments --listing--> entries --score_folder--> parts of the index
    part --part_worker--> rows --row_files--> one file, complete or absent

A part is a thousand inputs or so. Whoever scores it needs the index and the bundle
only, and to score it twice changes nothing, so engines do no more than hand out
numbers of parts: `local_workers` to processes of this machine, `ray_workers` to a
cluster. `run_score` is the whole of it.
"""

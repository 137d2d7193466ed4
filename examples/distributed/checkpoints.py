"""Checkpoints with Orbax, so that a run can be killed at any moment and continue.

A checkpoint holds the training state and the state of the data iterator. Orbax writes
it to a folder with a temporary name, and renames the folder when it is complete.
"""

import jax
import orbax.checkpoint as ocp


def open_folder(folder, every):
    """A checkpoint manager for `folder`: saves every `every` steps, and keeps two."""
    options = ocp.CheckpointManagerOptions(save_interval_steps=every, max_to_keep=2)
    return ocp.CheckpointManager(folder.resolve(), options=options)


def save(manager, step, state, iterator):
    """Saves a checkpoint if one is due after `step` steps. Call it in all processes."""
    if manager.should_save(step):
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            iterator=ocp.args.JsonSave(iterator.get_state()),
        )
        manager.save(step, args=args)


def restore(manager, state, iterator):
    """The number of steps done, and the state, from the last complete checkpoint.

    Arrays get the shardings of `state`, regardless of the mesh on which they were
    saved. The iterator continues with the batch of the next step.
    """
    step = manager.latest_step()
    if step is None:
        return 0, state
    like = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    args = ocp.args.Composite(
        state=ocp.args.StandardRestore(like), iterator=ocp.args.JsonRestore()
    )
    saved = manager.restore(step, args=args)
    iterator.set_state(saved.iterator)
    return step, saved.state

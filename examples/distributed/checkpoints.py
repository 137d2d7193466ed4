"""What a run saves with Orbax, such that it can be killed at any moment and goes on.

A checkpoint has the state of the training and that of the iterator over the data. Orbax
writes it to a folder with a temporary name and renames the folder once it is complete.
"""

import jax
import orbax.checkpoint as ocp


def open_folder(folder, every):
    """A manager of the checkpoints in `folder`: one each `every` steps, two kept."""
    options = ocp.CheckpointManagerOptions(save_interval_steps=every, max_to_keep=2)
    return ocp.CheckpointManager(folder.resolve(), options=options)


def save(manager, step, state, iterator):
    """Saves if a checkpoint is due after `step` steps; all processes call it."""
    if manager.should_save(step):
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            iterator=ocp.args.JsonSave(iterator.get_state()),
        )
        manager.save(step, args=args)


def restore(manager, state, iterator):
    """The steps done and the state after them, from the last complete checkpoint.

    Arrays get the shardings of `state`, on whichever mesh they were saved. The iterator
    continues after the batch of the last of these steps.
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

"""Decoders of `tf.contrib.seq2seq`, in the shape of a TensorFlow 1 script."""

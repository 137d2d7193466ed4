"""Decoders and losses of `tf.contrib.seq2seq`."""

"""The decoders of `tf.contrib.seq2seq`, used as in a TensorFlow 1 script."""

"""The way past one machine: a Ray cluster, object stores."""

"""The clusters that are measured, each as real processes on loopback with the defaults of its makers."""

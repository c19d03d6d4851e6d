"""What `fit` needs beside a generator and a loss."""

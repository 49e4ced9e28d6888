"""Work shared by ranks: rows of the batch, tokens of a row, features of a layer."""

"""A model directory behind HTTP, in the form of OpenAI's interface.

The event loop (`serving`, `app`) reads and answers; one thread (`decoding`, or `batching` for classifiers and
encoders) runs the model. What crosses between them is a request on the way there and its pieces on the way back.
"""

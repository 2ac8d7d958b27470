"""What is kept by one service and reloaded by another: models and presets, each under the SHA-256 of its bytes.

Here is how they become bytes and come back, checked. Where the bytes lie is the bus's and each service's affair.
"""

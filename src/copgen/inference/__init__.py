"""What makes a network call quick on the processor at hand: weights laid out for it, and what no library does fast enough, in C++."""

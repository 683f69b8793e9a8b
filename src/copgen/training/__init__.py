"""How is a model made? Recipes, sources of samples, the loop that both trainings share, and the two trainings."""

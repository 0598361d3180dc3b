"""From images to vectors: models, weights, batches. Knows no Ray, no HTTP and no database."""

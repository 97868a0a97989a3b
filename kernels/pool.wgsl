// Max-pooling of images (contracts and references: pool.ts).

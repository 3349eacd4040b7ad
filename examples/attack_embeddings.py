"""Retrieval under attack: pull the embeddings of query images towards those of other classes.

Trains a small embedding network on the digits 0 to 4 and measures Recall@1 on 5 to 9, which it never saw: each image
of a query set is searched among all others, first clean, then attacked. Needs the extra "demo" for the digits.
Run: python examples/attack_embeddings.py
"""

import torch

from mdprop_ext.attacks import FeatureTargetAttack
from mdprop_ext.data import ClassBatchSampler, load_splits
from mdprop_ext.losses import MultiSimilarityLoss
from mdprop_ext.metrics import retrieval_metrics
from mdprop_ext.nn.backbones import conv4

torch.manual_seed(0)
splits = load_splits("digits")
model = conv4(width=16, embedding_dim=32)
criterion = MultiSimilarityLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

sampler = ClassBatchSampler(splits.train.labels, classes=len(splits.train.classes), per_class=16)

model.train()
for epoch in range(2):
    sampler.set_epoch(epoch)
    for indices in sampler:
        loss = criterion(model(splits.train.floats(indices)), splits.train.labels[indices])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

model.eval()
images, labels = splits.test.floats(), splits.test.labels
with torch.no_grad():
    gallery = model(images)


def report(title: str, embeddings: torch.Tensor) -> None:
    # Query i must not find its own clean image, which is reference i.
    found = retrieval_metrics(embeddings, labels[: len(embeddings)], gallery, labels, ref_includes_query=True, ks=(1,))
    print(f"{title}  R@1 {100 * found['recall_at_1']:5.1f} %  mAP@R {100 * found['map_at_r']:5.1f} %")


queries = images[:300]
report("clean        ", gallery[:300])
for targets in (1, 5):
    attack = FeatureTargetAttack(model, targets=targets, eps=16 / 255, steps=5)
    with torch.no_grad():
        report(f"{targets} target{'s' * (targets > 1):<5}", model(attack(queries, labels[:300])))

"""The manifest that lets KServe run a bundle for Triton."""

from __future__ import annotations


def inference_service(name: str) -> str:
    """An `InferenceService` as YAML; the storage's address is for the user to fill in.

    KServe's documentation of the Triton runtime has the fields.
    """
    label = name.lower().replace("_", "-").replace(".", "-").strip("-")  # as Kubernetes wants it
    return f"""\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {label}
spec:
  predictor:
    model:
      modelFormat:
        name: triton
      protocolVersion: v2
      # where this folder was copied to: pvc://, s3://, gs:// or https://
      storageUri: pvc://models/{name}
"""

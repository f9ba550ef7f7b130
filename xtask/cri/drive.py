"""One call of the container runtime interface: drive.py SOCKET METHOD REQUEST, both messages as JSON."""
import sys

import grpc
from google.protobuf import json_format

import cri_pb2 as cri

KINDS = {
    "RunPodSandbox": (cri.RunPodSandboxRequest, cri.PodSandboxId),
    "StopPodSandbox": (cri.PodSandboxId, cri.Empty),
    "RemovePodSandbox": (cri.PodSandboxId, cri.Empty),
    "CreateContainer": (cri.CreateContainerRequest, cri.ContainerId),
    "StartContainer": (cri.ContainerId, cri.Empty),
    "StopContainer": (cri.StopContainerRequest, cri.Empty),
    "RemoveContainer": (cri.ContainerId, cri.Empty),
    "UpdateContainerResources": (cri.UpdateContainerResourcesRequest, cri.Empty),
    "ExecSync": (cri.ExecSyncRequest, cri.ExecSyncResponse),
    "ContainerStats": (cri.ContainerId, cri.ContainerStatsResponse),
    "ContainerStatus": (cri.ContainerId, cri.ContainerStatusResponse),
}

socket, method, text = sys.argv[1:]
request, response = KINDS[method]
with grpc.insecure_channel("unix://" + socket, options=[("grpc.enable_http_proxy", 0)]) as channel:
    call = channel.unary_unary(
        "/runtime.v1.RuntimeService/" + method,
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )
    try:
        answer = call(json_format.Parse(text, request()), timeout=50)
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
print(json_format.MessageToJson(answer, preserving_proto_field_name=True, indent=None))

# builds $(OUT) for cirri.protos.load: what protos/ declare, with all that they import
ROOT := ../../..
PROTOC := $(if $(wildcard $(ROOT)/.venv/bin/python),$(ROOT)/.venv/bin/python -m grpc_tools.protoc,protoc)
PROTOS := $(wildcard protos/*.proto protos/*/*.proto)

$(OUT): $(PROTOS)
	mkdir -p build
	$(PROTOC) -Iprotos --include_imports --descriptor_set_out=$@ $(PROTOS)

clean:
	rm -rf build

.PHONY: clean

{{/* What a container may: everything where it is privileged, else what is listed and no more. */}}
{{- define "cirri.privileges" -}}
readOnlyRootFilesystem: true
{{- if .privileged }}
privileged: true
{{- else }}
privileged: false
allowPrivilegeEscalation: false
capabilities:
  drop: ["ALL"]
  {{- with .capabilities }}
  add: {{ toJson . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "cirri.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: run, mountPath: /run/cirri}
- {name: state, mountPath: /var/lib/cirri}
{{- if .ca }}
- {name: bus, mountPath: /etc/cirri/bus, readOnly: true}
{{- end }}
{{- if .service.processesOfNode }}
- {name: cgroup, mountPath: /sys/fs/cgroup, readOnly: true}
{{- end }}
{{- if .service.privileged }}
- {name: bpffs, mountPath: /sys/fs/bpf, mountPropagation: Bidirectional}
- {name: netns, mountPath: /var/run/netns, mountPropagation: HostToContainer}
- {name: cgroup, mountPath: /host/cgroup}
{{- else if .service.bpffs }}
- {name: bpffs, mountPath: /sys/fs/bpf, mountPropagation: HostToContainer}
{{- end }}
{{- end }}

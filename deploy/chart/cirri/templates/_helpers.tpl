{{/* The value at a path such as "hubble.enabled", as JSON: (dict "values" .Values "path" P). */}}
{{- define "cirri.at" -}}
{{- $here := .values -}}
{{- range splitList "." .path }}{{ $here = index $here . }}{{ end -}}
{{- toJson $here -}}
{{- end }}

{{/* The services that these values ask for, as YAML: {services: [...]}. */}}
{{- define "cirri.services" -}}
{{- $root := . -}}
{{- $found := list -}}
{{- range (.Files.Get "files/services.yaml" | fromYaml).services -}}
  {{- $wanted := true -}}
  {{- range .gates -}}
    {{- if ne (include "cirri.at" (dict "values" $root.Values "path" .)) "true" }}{{ $wanted = false }}{{ end -}}
  {{- end -}}
  {{- if $wanted }}{{ $found = append $found . }}{{ end -}}
{{- end -}}
{{- toYaml (dict "services" $found) -}}
{{- end }}

{{- define "cirri.labels" -}}
app.kubernetes.io/part-of: cirri
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{ include "cirri.selector" . }}
{{- end }}

{{- define "cirri.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- define "cirri.image" -}}
{{- $values := .root.Values.image -}}
{{- with $values.registry }}{{ trimSuffix "/" . }}/{{ end }}cirri/{{ .name }}:{{ $values.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* Where the bus is: every address of it, tried in turn. */}}
{{- define "cirri.bus" -}}
{{- if .Values.nats.enabled -}}
  {{- if ne (len .Values.nats.hosts) (int .Values.nats.replicas) -}}
    {{- fail (printf "nats.hosts must name the addresses of the %d nodes that run the bus (nats.replicas), and names %d: the network is made with it, so no Service leads to it yet" (int .Values.nats.replicas) (len .Values.nats.hosts)) -}}
  {{- end -}}
  {{- $urls := list -}}
  {{- range .Values.nats.hosts }}{{ $urls = append $urls (printf "tls://%s:%d" (include "cirri.host" .) (int $.Values.nats.port)) }}{{ end -}}
  {{- join "," $urls -}}
{{- else -}}
  {{- if not .Values.nats.external.urls }}{{ fail "nats.enabled is false: nats.external.urls must say where the bus is" }}{{ end -}}
  {{- if not .Values.nats.external.credentialsSecret }}{{ fail "nats.enabled is false: nats.external.credentialsSecret must name the Secret with a password for each service" }}{{ end -}}
  {{- join "," .Values.nats.external.urls -}}
{{- end -}}
{{- end }}

{{/* An address as it stands in a URL. */}}
{{- define "cirri.host" -}}
{{- if contains ":" . }}[{{ . }}]{{ else }}{{ . }}{{ end -}}
{{- end }}

{{- define "cirri.busCaSecret" -}}
{{- if .Values.nats.enabled }}cirri-nats-ca{{ else }}{{ .Values.nats.external.caSecret }}{{ end -}}
{{- end }}

{{/* Secrets with Hubble's certificates that these values ask for, by who speaks with them, as YAML. */}}
{{- define "cirri.hubbleSecrets" -}}
{{- $tls := .Values.hubble.tls -}}
{{- if and .Values.hubble.enabled $tls.enabled -}}
  {{- $relay := .Values.hubble.relay -}}
  {{- $found := dict "flows" (dict "made" "hubble-server-certs" "named" $tls.server.existingSecret "value" "hubble.tls.server.existingSecret") -}}
  {{- if $relay.enabled -}}
    {{- $_ := set $found "relay-client" (dict "made" "hubble-relay-client-certs" "named" $relay.tls.client.existingSecret "value" "hubble.relay.tls.client.existingSecret") -}}
    {{- if $relay.tls.server.enabled -}}
      {{- $_ := set $found "relay-server" (dict "made" "hubble-relay-server-certs" "named" $relay.tls.server.existingSecret "value" "hubble.relay.tls.server.existingSecret") -}}
    {{- end -}}
  {{- end -}}
  {{- range $who, $one := $found }}
    {{- if and (not $tls.auto.enabled) (not $one.named) }}{{ fail (printf "hubble.tls.auto.enabled is false: %s must name a Secret with ca.crt, tls.crt and tls.key" $one.value) }}{{ end }}
{{ $who }}: {{ $tls.auto.enabled | ternary $one.made $one.named }}
  {{- end -}}
{{- end -}}
{{- end }}

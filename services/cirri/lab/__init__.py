"""A cluster on one Linux machine: the embedded default and the test bed.

``cirri lab up`` builds network namespaces (a fabric, nodes, a router, a client, an internet),
starts ``nats-server`` and the real services, one process each, and acts as kubelet, scheduler and
endpoint controller for ordinary manifests.

Modules, in the order in which ``up`` uses them::

    topology     what a lab consists of: hosts, addresses, routes, paths (pure)
    enter        namespaces, cgroups and process identities of the kernel
    build        make the namespaces, devices, routes; take everything away again
    services     which processes run where, with which settings (pure)
    known        labs that exist
    supervisor   the process that keeps them running
    controller   the process that acts as kubelet:
                 deployments, scheduling, slices, dns, status   decisions (pure)
                 images, sandbox, kubelet                       what turns a Pod into processes
    programs/    what runs in pods and in the internet namespace
    cli, execute, report, restarting, demo                      commands

Nothing in a service knows that it runs in a lab: it gets its settings by environment, as it
would anywhere.
"""

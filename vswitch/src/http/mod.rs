//! The API: HTTP/JSON on a Unix socket (`curl --unix-socket` works). Each handler asks the control task.

mod acl;
mod error;
pub mod socket;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use utoipa::OpenApi;
use vswitch_api::request::{
    ApplyQuery, FdbKey, FdbQuery, ForceQuery, NetworkPatch, NewPeer, NewPort, PortPatch, TenantPatch, Trace,
};
use vswitch_api::response::{
    Changes, ErrorBody, ErrorCode, FdbEntry, Flushed, NetworkState, PortState, Problem, Stats, Status,
    TenantState, TraceResult, VxlanState,
};
use vswitch_api::topology::{FileProblem, Network, StaticEntry};
use vswitch_api::{Topology, paths, topology};

use crate::control::{Options, Remote, edit};
use error::{Body, Failure, Params};

type Answer<T> = Result<Json<T>, Failure>;

/// The whole API.
pub fn router(control: Remote) -> Router {
    Router::new()
        .route(paths::STATUS, get(status))
        .route(paths::CONFIG, get(config).put(apply))
        .route(paths::CONFIG_DIFF, post(diff))
        .route(paths::NETWORKS, get(networks).post(add_network))
        .route(paths::PEERS, post(add_peer))
        .route(paths::PEER, axum::routing::delete(del_peer))
        .route(paths::VXLAN, get(vxlan))
        .route(paths::NETWORK, axum::routing::patch(set_network).delete(del_network))
        .route(paths::TENANTS, get(tenants))
        .route(paths::TENANT, get(tenant).patch(set_tenant).delete(del_tenant))
        .route(paths::PORTS, get(ports).post(add_port))
        .route(paths::PORT, get(port).patch(set_port).delete(del_port))
        .route(paths::ACLS, get(acl::acls).post(acl::add_acl))
        .route(paths::ACL, get(acl::acl).delete(acl::del_acl))
        .route(paths::ACL_RULES, post(acl::add_rule))
        .route(paths::ACL_RULE, axum::routing::delete(acl::del_rule))
        .route(paths::FDB, get(fdb).post(add_fdb).delete(del_fdb))
        .route(paths::FDB_FLUSH, post(flush_fdb))
        .route(paths::STATS, get(stats))
        .route(paths::TRACE, post(trace))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(paths::BODY_MAX))
        .layer(axum::middleware::from_fn(socket::log_changes))
        .with_state(control)
}

/// The description of the API, as `docs/openapi.json` has it.
#[derive(OpenApi)]
#[openapi(
    info(title = "vswitch", description = "The API of the vswitch daemon, on a Unix socket."),
    paths(
        status,
        config,
        apply,
        diff,
        networks,
        add_network,
        set_network,
        del_network,
        add_peer,
        del_peer,
        vxlan,
        acl::acls,
        acl::add_acl,
        acl::acl,
        acl::del_acl,
        acl::add_rule,
        acl::del_rule,
        tenants,
        tenant,
        set_tenant,
        del_tenant,
        ports,
        add_port,
        port,
        set_port,
        del_port,
        fdb,
        add_fdb,
        del_fdb,
        flush_fdb,
        stats,
        trace
    )
)]
pub struct Description;

#[utoipa::path(get, path = paths::STATUS, responses((status = 200, body = Status)))]
async fn status(State(control): State<Remote>) -> Answer<Status> {
    Ok(Json(control.ask(|c| Box::pin(async { c.status() })).await?))
}

#[utoipa::path(get, path = paths::CONFIG, responses((status = 200, body = Topology)))]
async fn config(State(control): State<Remote>) -> Answer<Topology> {
    Ok(Json(control.ask(|c| Box::pin(async { c.desired().clone() })).await?))
}

/// A topology as JSON, or as TOML when the content type says so.
fn read_topology(headers: &HeaderMap, body: &[u8]) -> Result<Topology, ErrorBody> {
    let is_toml = headers.get(CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(paths::TOML.as_bytes()));
    if !is_toml {
        let invalid =
            |e: serde_json::Error| ErrorBody::new(ErrorCode::Invalid, format!("the topology: {e}"), "");
        return serde_json::from_slice(body).map_err(invalid);
    }
    let text = std::str::from_utf8(body)
        .map_err(|e| ErrorBody::new(ErrorCode::Invalid, format!("the topology is not UTF-8: {e}"), ""))?;
    let located =
        |p: FileProblem| Problem { path: format!("line {}: {}", p.line, p.problem.path), ..p.problem };
    topology::load(text, "").map_err(|all| ErrorBody::mistakes(all.into_iter().map(located).collect()))
}

#[utoipa::path(put, path = paths::CONFIG, params(ApplyQuery), request_body = Topology,
    responses((status = 200, body = Changes), (status = 400, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn apply(
    State(control): State<Remote>,
    Params(query): Params<ApplyQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Changes> {
    let next = read_topology(&headers, &body)?;
    Ok(Json(
        control.ask(move |c| Box::pin(async move { c.apply(next, Options::from(&query)).await })).await??,
    ))
}

#[utoipa::path(post, path = paths::CONFIG_DIFF, request_body = Topology,
    responses((status = 200, body = Changes), (status = 400, body = ErrorBody)))]
async fn diff(State(control): State<Remote>, headers: HeaderMap, body: Bytes) -> Answer<Changes> {
    let next = read_topology(&headers, &body)?;
    Ok(Json(control.ask(move |c| Box::pin(async move { c.diff(&next) })).await??))
}

/// Applies an edit of the running configuration.
async fn change(
    control: &Remote,
    options: Options,
    edit: impl FnOnce(Topology) -> Result<Topology, ErrorBody> + Send + 'static,
) -> Answer<Changes> {
    let changed = control.ask(move |c| {
        Box::pin(async move {
            let next = edit(c.desired().clone())?;
            c.apply(next, options).await
        })
    });
    Ok(Json(changed.await??))
}

#[utoipa::path(get, path = paths::NETWORKS, responses((status = 200, body = Vec<NetworkState>)))]
async fn networks(State(control): State<Remote>) -> Answer<Vec<NetworkState>> {
    Ok(Json(control.ask(|c| Box::pin(async { c.network_views() })).await?))
}

#[utoipa::path(post, path = paths::NETWORKS, request_body = Network, responses((status = 200, body = Changes)))]
async fn add_network(State(control): State<Remote>, Body(network): Body<Network>) -> Answer<Changes> {
    change(&control, Options::default(), |t| edit::add_network(t, network)).await
}

#[utoipa::path(patch, path = paths::NETWORK, params(("name" = String, Path)), request_body = NetworkPatch,
    responses((status = 200, body = Changes), (status = 404, body = ErrorBody)))]
async fn set_network(
    State(control): State<Remote>,
    Path(name): Path<String>,
    Body(patch): Body<NetworkPatch>,
) -> Answer<Changes> {
    change(&control, Options::default(), move |t| edit::set_network(t, &name, patch)).await
}

#[utoipa::path(delete, path = paths::NETWORK, params(("name" = String, Path)),
    responses((status = 200, body = Changes), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn del_network(State(control): State<Remote>, Path(name): Path<String>) -> Answer<Changes> {
    change(&control, Options::default(), move |t| edit::del_network(t, &name)).await
}

#[utoipa::path(post, path = paths::PEERS, params(("name" = String, Path)), request_body = NewPeer,
    responses((status = 200, body = Changes), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn add_peer(
    State(control): State<Remote>,
    Path(name): Path<String>,
    Body(peer): Body<NewPeer>,
) -> Answer<Changes> {
    change(&control, Options::default(), move |t| edit::add_peer(t, &name, peer.address)).await
}

#[utoipa::path(delete, path = paths::PEER, params(("name" = String, Path), ("address" = String, Path)),
    responses((status = 200, body = Changes), (status = 404, body = ErrorBody)))]
async fn del_peer(
    State(control): State<Remote>,
    Path((name, address)): Path<(String, String)>,
) -> Answer<Changes> {
    let invalid = || {
        ErrorBody::new(ErrorCode::Invalid, format!("{address:?} is no IP address"), "write it as 192.0.2.2")
    };
    let address = address.parse().map_err(|_| invalid())?;
    change(&control, Options::default(), move |t| edit::del_peer(t, &name, address)).await
}

#[utoipa::path(get, path = paths::VXLAN, responses((status = 200, body = VxlanState)))]
async fn vxlan(State(control): State<Remote>) -> Answer<VxlanState> {
    Ok(Json(control.ask(|c| Box::pin(async { c.vxlan_view() })).await?))
}

#[utoipa::path(get, path = paths::TENANTS, responses((status = 200, body = Vec<TenantState>)))]
async fn tenants(State(control): State<Remote>) -> Answer<Vec<TenantState>> {
    Ok(Json(control.ask(|c| Box::pin(async { c.tenant_views() })).await?))
}

#[utoipa::path(get, path = paths::TENANT, params(("name" = String, Path)),
    responses((status = 200, body = TenantState), (status = 404, body = ErrorBody)))]
async fn tenant(State(control): State<Remote>, Path(name): Path<String>) -> Answer<TenantState> {
    let wanted = name.clone();
    let all = control.ask(|c| Box::pin(async { c.tenant_views() })).await?;
    let found = all.into_iter().find(|t| t.name == wanted);
    Ok(Json(found.ok_or_else(|| ErrorBody::no_tenant(&name))?))
}

#[utoipa::path(patch, path = paths::TENANT, params(("name" = String, Path)), request_body = TenantPatch,
    responses((status = 200, body = Changes), (status = 400, body = ErrorBody)))]
async fn set_tenant(
    State(control): State<Remote>,
    Path(name): Path<String>,
    Body(patch): Body<TenantPatch>,
) -> Answer<Changes> {
    change(&control, Options::default(), move |t| edit::set_tenant(t, &name, patch)).await
}

#[utoipa::path(delete, path = paths::TENANT, params(("name" = String, Path)),
    responses((status = 200, body = Changes), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn del_tenant(State(control): State<Remote>, Path(name): Path<String>) -> Answer<Changes> {
    change(&control, Options::default(), move |t| edit::del_tenant(t, &name)).await
}

#[utoipa::path(get, path = paths::PORTS, responses((status = 200, body = Vec<PortState>)))]
async fn ports(State(control): State<Remote>) -> Answer<Vec<PortState>> {
    Ok(Json(control.ask(|c| Box::pin(async { c.port_views() })).await?))
}

#[utoipa::path(post, path = paths::PORTS, params(ForceQuery), request_body = NewPort,
    responses((status = 200, body = Changes), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn add_port(
    State(control): State<Remote>,
    Params(query): Params<ForceQuery>,
    Body(port): Body<NewPort>,
) -> Answer<Changes> {
    change(&control, Options::from(&query), |t| edit::add_port(t, port)).await
}

#[utoipa::path(get, path = paths::PORT, params(("name" = String, Path)),
    responses((status = 200, body = PortState), (status = 404, body = ErrorBody)))]
async fn port(State(control): State<Remote>, Path(name): Path<String>) -> Answer<PortState> {
    let wanted = name.clone();
    let all = control.ask(|c| Box::pin(async { c.port_views() })).await?;
    let found = all.into_iter().find(|p| p.name == wanted);
    Ok(Json(found.ok_or_else(|| ErrorBody::no_port(&name))?))
}

#[utoipa::path(patch, path = paths::PORT, params(("name" = String, Path), ForceQuery), request_body = PortPatch,
    responses((status = 200, body = Changes), (status = 404, body = ErrorBody)))]
async fn set_port(
    State(control): State<Remote>,
    Path(name): Path<String>,
    Params(query): Params<ForceQuery>,
    Body(patch): Body<PortPatch>,
) -> Answer<Changes> {
    change(&control, Options::from(&query), move |t| edit::set_port(t, &name, patch)).await
}

#[utoipa::path(delete, path = paths::PORT, params(("name" = String, Path)),
    responses((status = 200, body = Changes), (status = 404, body = ErrorBody)))]
async fn del_port(State(control): State<Remote>, Path(name): Path<String>) -> Answer<Changes> {
    change(&control, Options::default(), move |t| edit::del_port(t, &name)).await
}

#[utoipa::path(get, path = paths::FDB, params(FdbQuery), responses((status = 200, body = Vec<FdbEntry>)))]
async fn fdb(State(control): State<Remote>, Params(query): Params<FdbQuery>) -> Answer<Vec<FdbEntry>> {
    Ok(Json(control.ask(move |c| Box::pin(async move { c.fdb_views(&query) })).await??))
}

#[utoipa::path(post, path = paths::FDB, request_body = StaticEntry, responses((status = 200, body = Changes)))]
async fn add_fdb(State(control): State<Remote>, Body(entry): Body<StaticEntry>) -> Answer<Changes> {
    change(&control, Options::default(), |t| Ok(edit::add_fdb(t, entry))).await
}

#[utoipa::path(delete, path = paths::FDB, params(FdbKey),
    responses((status = 200, body = Changes), (status = 404, body = ErrorBody)))]
async fn del_fdb(State(control): State<Remote>, Params(key): Params<FdbKey>) -> Answer<Changes> {
    Ok(Json(control.ask(move |c| Box::pin(async move { c.del_fdb(&key).await })).await??))
}

#[utoipa::path(post, path = paths::FDB_FLUSH, request_body = FdbQuery, responses((status = 200, body = Flushed)))]
async fn flush_fdb(State(control): State<Remote>, Body(query): Body<FdbQuery>) -> Answer<Flushed> {
    Ok(Json(control.ask(move |c| Box::pin(async move { c.flush(&query) })).await??))
}

#[utoipa::path(get, path = paths::STATS, responses((status = 200, body = Stats)))]
async fn stats(State(control): State<Remote>) -> Answer<Stats> {
    Ok(Json(control.ask(|c| Box::pin(async { c.stats() })).await?))
}

#[utoipa::path(post, path = paths::TRACE, request_body = Trace,
    responses((status = 200, body = TraceResult), (status = 404, body = ErrorBody)))]
async fn trace(State(control): State<Remote>, Body(request): Body<Trace>) -> Answer<TraceResult> {
    Ok(Json(control.ask(move |c| Box::pin(async move { c.trace(&request) })).await??))
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.0)).into_response()
    }
}

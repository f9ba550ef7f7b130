use super::*;

type Ids = Tree<(), ()>;

fn add(tree: &mut Ids, parent: Option<i32>, group: Option<i32>) -> i32 {
    let id = tree.allocate_id().expect("room");
    let process_group = match (group, parent) {
        (Some(pgid), Some(parent)) => {
            let session = Arc::clone(tree.node(parent).expect("there").process_group.session());
            tree.process_group(pgid).unwrap_or_else(|| ProcessGroup::new(pgid, session))
        }
        _ => ProcessGroup::new(id, Session::new(id)),
    };
    let node = Node {
        group: (),
        parent,
        parent_thread: parent.unwrap_or(0),
        children: Vec::new(),
        process_group,
        life: Life::Alive,
        subreaper: false,
        did_exec: false,
        exit_signal: 17,
    };
    tree.add_group(id, node);
    tree.add_task(id, ());
    id
}

#[test]
fn orphans_go_to_the_nearest_subreaper_else_to_init() {
    let mut tree = Ids::default();
    let init = add(&mut tree, None, None);
    let reaper = add(&mut tree, Some(init), Some(init));
    let middle = add(&mut tree, Some(reaper), Some(init));
    let leaf = add(&mut tree, Some(middle), Some(init));
    tree.node_mut(reaper).expect("there").subreaper = true;
    assert_eq!(tree.reparent_children(middle), [leaf]);
    assert_eq!(tree.node(leaf).expect("there").parent, Some(reaper));
    assert_eq!(tree.reparent_children(reaper), [middle, leaf]);
    assert_eq!(tree.node(leaf).expect("there").parent, Some(init));
    tree.reparent_children(init);
    assert_eq!(tree.node(leaf).expect("there").parent, None);
}

#[test]
fn a_process_group_is_orphaned_without_a_parent_in_its_session() {
    let mut tree = Ids::default();
    let shell = add(&mut tree, None, None);
    let job = add(&mut tree, Some(shell), Some(2));
    let helper = add(&mut tree, Some(job), Some(2));
    assert!(!tree.is_orphaned(2));
    assert!(tree.is_orphaned(shell));
    tree.node_mut(job).expect("there").life = Life::Notifying;
    assert!(tree.is_orphaned(2));
    tree.reparent_children(job);
    // Its new parent, init, is in the same session.
    assert_eq!(tree.node(helper).expect("there").parent, Some(shell));
    assert!(!tree.is_orphaned(2));
}

#[test]
fn ids_come_back_only_when_nothing_has_them() {
    let mut tree = Ids::default();
    let first = add(&mut tree, None, None);
    let leader = add(&mut tree, Some(first), Some(2));
    let member = add(&mut tree, Some(leader), Some(2));
    tree.remove_task(leader);
    tree.remove_group(leader);
    assert_eq!(tree.node(first).expect("there").children, []);
    // The group's id stays taken by the process group that is named after it.
    assert!(tree.is_taken(leader));
    tree.remove_task(member);
    tree.remove_group(member);
    assert!(!tree.is_taken(leader) && !tree.is_taken(member));
    let reserved = tree.allocate_id().expect("room");
    assert!(tree.is_taken(reserved));
    tree.free_id(reserved);
    assert!(!tree.is_taken(reserved));
}

#[test]
fn ids_wrap_above_the_reserved_ones_and_run_out() {
    let mut tree = Ids { last_id: PID_MAX - 1, ..Ids::default() };
    assert_eq!(tree.allocate_id(), Ok(RESERVED_PIDS));
    for _ in 0..PID_MAX - RESERVED_PIDS - 1 {
        tree.allocate_id().expect("room");
    }
    assert_eq!(tree.allocate_id(), Err(Errno::EAGAIN));
}
